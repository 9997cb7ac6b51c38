"""QAT-EKD-GoR: one target fused from the class-score maps of three teachers of
different kinds, features from each."""

_base_ = './retinanet_r18half_w4_from_mbv2.py'
unknown = dict(config='', checkpoint='filled in by tools/demo.py')
model = dict(
    teachers=dict(
        _delete_=True, retinanet=unknown, atss=unknown, yolox=unknown
    ),
    kd_heads=dict(
        _delete_=True,
        cls=dict(
            type='ScoreKDHead',
            teacher=['retinanet', 'atss', 'yolox'],
            fusion='confidence',
        ),
        neck_retinanet=dict(
            type='FeatureKDHead',
            teacher='retinanet',
            student_channels=64,
            teacher_channels=128,
            loss_weight=1 / 3,
        ),
        neck_atss=dict(
            type='FeatureKDHead',
            teacher='atss',
            student_channels=64,
            teacher_channels=128,
            loss_weight=1 / 3,
        ),
        neck_yolox=dict(
            type='FeatureKDHead',
            teacher='yolox',
            student_channels=64,
            strides=(8, 16, 32),
            loss_weight=1 / 3,
        ),
    ),
)
