"""RetinaNet-R50 at W4A4 learns from RetinaNet-X101-64x4d (COCO)."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
    detector='RetinaNet',
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='FPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='RetinaHead', quant=quant),
    teachers=dict(
        x101=dict(
            config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'retinanet/retinanet_x101_64x4d_fpn_1x_coco/'
            'retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(type='FeatureKDHead', student_channels=256),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
    'retinanet_r50_fpn_1x_coco/'
    'retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth'
)
# Step sizes hardly move under SGD (docs/design.md).
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            '_quantizer.': dict(decay_mult=0.0),
            'gor_weighting.': dict(decay_mult=0.0),
        }
    ),
)
custom_hooks = [
    dict(type='QuantCalibrationHook'),
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
]
