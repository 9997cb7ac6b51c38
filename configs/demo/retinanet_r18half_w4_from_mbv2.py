"""QAT with one teacher: GoR weighs the task loss and the KD loss."""

_base_ = ['./retinanet_r18half_w4.py', '../_base_/gor/distillation.py']
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='RetinaNet',
    teachers=dict(
        mbv2=dict(
            config='mmgor::demo/retinanet_mbv2.py',
            checkpoint='work_dirs/retinanet_mbv2/epoch_12.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(
            type='FeatureKDHead', student_channels=64, teacher_channels=128
        ),
    ),
)
