"""A W4A4 RetinaNet learns from a detector of another kind.

YOLOX has other strides, anchors, channels and normalisation; scores and boxes
are compared location by location, features through connectors.
"""

_base_ = '../baselines/retinanet_mbv2_w4.py'
model = dict(
    type='GoRDetector',
    detector='RetinaNet',
    teachers=dict(
        yolox=dict(
            config='mmdet::yolox/yolox_nano_8xb8-300e_coco.py',
            checkpoint='weights/yolox_nano_coco.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='ScoreKDHead'),
        box=dict(type='BoxKDHead'),
        neck=dict(
            type='FeatureKDHead',
            student_channels=64,
            teacher_channels=64,
            strides=(8, 16, 32),
        ),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'gor_weighting.': dict(decay_mult=0.0)})
)
custom_hooks = [
    dict(type='QuantCalibrationHook'),
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
]
