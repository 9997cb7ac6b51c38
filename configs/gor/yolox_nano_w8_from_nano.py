"""YOLOX-nano at W8A8 learns from its own float network.

Class logits and neck features are distilled; GoR weighs the task loss and the
KD loss.
"""

_base_ = ['../baselines/yolox_nano_w8.py', '../_base_/gor/distillation.py']
_base_.merge(_base_.pop('gor'))

model = dict(
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
)
custom_hooks = [*_base_.custom_hooks, {{_base_.ema}}]
