"""QAT with one teacher, YOLOX-nano: class-score maps and boxes."""

_base_ = './retinanet_r18half_w4_from_retinanet.py'
model = dict(
    teachers=dict(
        _delete_=True,
        yolox=dict(config='', checkpoint='filled in by a plan'),
    )
)
