"""FCOS-R50 at W4A4 learns from FCOS-R101 (COCO)."""

_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
    detector='FCOS',
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='FPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='FCOSHead', quant=quant),
    teachers=dict(
        r101=dict(
            config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head-1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'fcos/fcos_r101_caffe_fpn_gn-head_1x_coco/'
            'fcos_r101_caffe_fpn_gn-head_1x_coco-0e37b982.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(type='FeatureKDHead', student_channels=256),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'fcos/fcos_r50_caffe_fpn_gn-head_1x_coco/'
    'fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth'
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
