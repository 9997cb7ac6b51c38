"""QAT with one teacher, a RetinaNet: class-score maps and boxes."""

_base_ = './retinanet_r18half_w4_from_mbv2.py'
model = dict(
    teachers=dict(
        _delete_=True,
        retinanet=dict(config='', checkpoint='filled in by a plan'),
    ),
    kd_heads=dict(
        _delete_=True,
        cls=dict(type='ScoreKDHead'),
        box=dict(type='BoxKDHead'),
    ),
)
