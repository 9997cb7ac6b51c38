"""QAT-EKD-GoR with three teachers: RetinaNet, ATSS and YOLOX.

Their class-score maps are fused into one target; the boxes of each teacher are
distilled with a third of the weight.
"""

_base_ = './retinanet_r18half_w4_from_mbv2.py'
unknown = dict(config='', checkpoint='filled in by a plan')
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
        box_retinanet=dict(
            type='BoxKDHead', teacher='retinanet', loss_weight=1 / 3
        ),
        box_atss=dict(type='BoxKDHead', teacher='atss', loss_weight=1 / 3),
        box_yolox=dict(type='BoxKDHead', teacher='yolox', loss_weight=1 / 3),
    ),
)
