"""SQAKD (Zhao & Zhao, AISTATS 2024): QAT on the teacher's outputs alone, no
labels.

The paper distils class scores. A detector has boxes, too: theirs is the GIoU
distance, since RetinaNet predicts no distributions. Task losses get weight 0
instead of being left out, so that DDP sees every parameter.
"""

_base_ = './retinanet_r18half_w4_from_mbv2.py'
model = dict(
    kd_heads=dict(
        _delete_=True,
        cls=dict(type='LogitKDHead'),
        box=dict(type='BoxKDHead'),
    ),
    gor_weighting=dict(_delete_=True, type='FixedWeighting', task_weight=0.0),
)
