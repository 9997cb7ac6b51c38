"""QAT without KD: RetinaNet-MobileNetV2 at W4A4 and 320 px.

The backbone starts from ImageNet weights (``model.backbone.init_cfg``), neck
and head start from scratch.
"""

_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection_r320.py',
    '../_base_/schedules/schedule_demo.py',
    '../_base_/default_runtime.py',
]
quant = dict(w_bits=4, a_bits=4)
model = dict(
    backbone=dict(
        _delete_=True,
        type='QuantBackbone',
        backbone='MobileNetV2',
        quant=quant,
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        init_cfg=dict(
            type='Pretrained', checkpoint='weights/mobilenetv2_imagenet.pth'
        ),
    ),
    neck=dict(
        type='QuantNeck',
        neck='FPN',
        quant=quant,
        in_channels=[24, 32, 96, 320],
        out_channels=64,
    ),
    bbox_head=dict(
        type='QuantHead',
        head='RetinaHead',
        quant=quant,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.3),
            '_quantizer.': dict(decay_mult=0.0),
        }
    )
)
custom_hooks = [dict(type='QuantCalibrationHook')]
