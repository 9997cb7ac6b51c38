"""YOLOX-nano at W8A8, every tensor rounded, learns from its float network.

One student for all targets with zero points. As yolox_nano_w8_from_nano.py
otherwise.
"""

_base_ = [
    '../baselines/yolox_nano_w8_int8.py',
    '../_base_/gor/yolox_nano_teacher.py',
]
_base_.merge(_base_.pop('gor'))

custom_hooks = [
    {{_base_.calibration}},
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
    {{_base_.ema}},
]
