"""ATSS-R50 at W4A4 learns from ATSS-R101: what a stock config needs."""

_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
    detector='ATSS',
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='FPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='ATSSHead', quant=quant),
    teachers=dict(
        r101=dict(
            config='mmdet::atss/atss_r101_fpn_1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'atss/atss_r101_fpn_1x_coco/'
            'atss_r101_fpn_1x_20200825-dfcadd6f.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(type='FeatureKDHead', student_channels=256),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/atss/'
    'atss_r50_fpn_1x_coco/'
    'atss_r50_fpn_1x_coco_20200209-985f7bd0.pth'
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
