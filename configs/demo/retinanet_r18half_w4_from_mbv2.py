"""QAT with a teacher: GoR weighs the task against the distillation loss."""

_base_ = './retinanet_r18half_w4.py'
model = dict(
    type='GoRDetector',
    detector='RetinaNet',
    teachers=dict(
        mbv2=dict(
            config='configs/demo/retinanet_mbv2.py',
            checkpoint='work_dirs/retinanet_mbv2/epoch_12.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(
            type='FeatureKDHead', student_channels=64, teacher_channels=128
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
