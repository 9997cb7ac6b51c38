"""QAT with one teacher, RetinaNet on MobileNetV2: class-score maps."""

_base_ = './retinanet_r18half_w4_from_mbv2.py'
model = dict(
    teachers=dict(
        _delete_=True,
        retinanet=dict(config='', checkpoint='filled in by tools/demo.py'),
    ),
    kd_heads=dict(
        _delete_=True,
        cls=dict(type='ScoreKDHead'),
        neck=dict(
            type='FeatureKDHead', student_channels=64, teacher_channels=128
        ),
    ),
)
