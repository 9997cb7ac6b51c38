"""RetinaNet-MobileNetV2 at W4A4 learns from YOLOX-nano, at 320 px.

The two have different strides, anchors, channels and input normalization.
Class scores and boxes are compared location by location on the strides that
both have, features through connectors.
"""

_base_ = [
    '../baselines/retinanet_mbv2_w4.py',
    '../_base_/gor/distillation.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='RetinaNet',
    teachers=dict(
        yolox=dict(
            config='mmdet::yolox/yolox_nano_8xb8-300e_coco.py',
            checkpoint='weights/yolox_nano.pth',
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
)
