"""As w4.py, for students with a ResNet, an FPN and a dense head.

Class logits and FPN features (256 channels) are distilled, so the teacher
needs the same anchors, strides and channels. The config wraps the head.
"""

_base_ = './w4.py'

gor = dict(
    model=dict(
        backbone=dict(
            type='QuantBackbone',
            backbone='ResNet',
            quant=_base_.quant,
            init_cfg=None,  # load_from has the backbone's weights, too
        ),
        neck=dict(type='QuantNeck', neck='FPN', quant=_base_.quant),
        kd_heads=dict(
            cls=dict(type='LogitKDHead'),
            neck=dict(type='FeatureKDHead', student_channels=256),
        ),
    )
)
