"""YOLOF-R50 at W4A4 learns from its float self (COCO).

The model zoo has no larger YOLOF. Its neck gives one map, of stride 32.
"""

_base_ = 'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
    detector='YOLOF',
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='DilatedEncoder', quant=quant),
    bbox_head=dict(type='QuantHead', head='YOLOFHead', quant=quant),
    teachers=dict(
        float=dict(
            config='mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'yolof/yolof_r50_c5_8x8_1x_coco/'
            'yolof_r50_c5_8x8_1x_coco_20210425_024427-8e864411.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(
            type='FeatureKDHead',
            student_channels=512,
            strides=(32,),
        ),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'yolof/yolof_r50_c5_8x8_1x_coco/'
    'yolof_r50_c5_8x8_1x_coco_20210425_024427-8e864411.pth'
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
