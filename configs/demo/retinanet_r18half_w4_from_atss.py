"""QAT with one teacher, ATSS on MobileNetV2: class-score maps and boxes."""

_base_ = './retinanet_r18half_w4_from_retinanet.py'
model = dict(
    teachers=dict(
        _delete_=True,
        atss=dict(config='', checkpoint='filled in by a plan'),
    )
)
