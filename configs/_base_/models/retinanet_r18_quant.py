"""RetinaNet-R18 at W4A4, first convolution and prediction layers at 8 bits.

Training starts from the model zoo's float checkpoint.
"""

_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='FPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='RetinaHead', quant=quant),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
    'retinanet_r18_fpn_1x_coco/'
    'retinanet_r18_fpn_1x_coco_20220407_171055-614fd399.pth'
)
# Under SGD, step sizes hardly move (docs/design.md).
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'_quantizer.': dict(decay_mult=0.0)}),
)
custom_hooks = [dict(type='QuantCalibrationHook')]
