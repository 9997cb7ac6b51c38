"""Distillation with GoR, for a base config whose student is quantized.

A config uses it in two lines:

    _base_ = ['./my_quantized_student.py', '../_base_/gor/distillation.py']
    _base_.merge(_base_.pop('gor'))

mmengine refuses two bases that set the same key, e.g. ``model``. Settings that
change the other base are therefore inside ``gor``, and the second line merges
them into it. The config then adds ``detector``, ``teachers`` and ``kd_heads``
to ``model``. If the other base has ``custom_hooks``, the list below replaces
them: add them again, as configs/gor/yolox_nano_w8_from_nano.py does.
"""

gor = dict(
    model=dict(type='GoRDetector', gor_weighting=dict(type='GoRWeighting')),
    # Weight decay would pull the thetas back to 0, where they start.
    optim_wrapper=dict(
        paramwise_cfg=dict(
            custom_keys={'gor_weighting.': dict(decay_mult=0.0)}
        )
    ),
    custom_hooks=[
        dict(type='QuantCalibrationHook'),
        dict(type='GoRWeightHook'),
        dict(type='NonFiniteLossHook'),
        dict(type='ReportHook'),
    ],
)
