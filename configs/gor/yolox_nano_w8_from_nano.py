"""YOLOX-nano at W8A8 learns from its own float network; GoR weighs class
logits and neck features against the task."""

_base_ = '../baselines/yolox_nano_w8.py'

model = dict(
    type='GoRDetector',
    detector='YOLOX',
    teachers=dict(
        nano=dict(
            config='configs/baselines/yolox_nano_float.py',
            checkpoint='weights/yolox_nano.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(
            type='FeatureKDHead', student_channels=64, strides=(8, 16, 32)
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
    {{_base_.ema}},
]
