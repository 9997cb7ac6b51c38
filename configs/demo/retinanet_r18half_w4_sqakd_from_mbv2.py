"""SQAKD (Zhao & Zhao, AISTATS 2024): QAT on the teacher's outputs alone, no
labels.

The paper distils class scores. A detector has boxes, too: theirs is the GIoU
distance, since RetinaNet predicts no distributions. Task losses get weight 0
instead of being left out, so that DDP sees every parameter; as long as they
are finite (0 * inf is nan), nothing that is trained depends on labelled boxes.

The data's base config drops pictures without boxes. To train on them, too:

    --cfg-options train_dataloader.dataset.filter_cfg.filter_empty_gt=False

The annotation file then needs ``images`` with sizes, the student's classes as
``categories``, and a list of ``annotations``, which may be empty. ``min_size``
goes on dropping pictures with a side below 8 px. It is no setting of this
config, since recorded runs of docs/plans/bccd_screen.yaml are tied to that;
their pictures all have boxes.
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
