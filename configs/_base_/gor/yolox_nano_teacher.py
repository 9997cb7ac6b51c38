"""YOLOX-nano learns from its own float network: logits and neck features.

Used as distillation.py is.
"""

_base_ = './distillation.py'

gor = dict(
    model=dict(
        detector='YOLOX',
        teachers=dict(
            nano=dict(
                config='mmgor::baselines/yolox_nano_float.py',
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
)
