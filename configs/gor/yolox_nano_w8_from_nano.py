"""YOLOX-nano at W8A8 learns from its own float network.

Class logits and neck features are distilled; GoR weighs the task loss and the
KD loss.
"""

_base_ = [
    '../baselines/yolox_nano_w8.py',
    '../_base_/gor/yolox_nano_teacher.py',
]
_base_.merge(_base_.pop('gor'))

custom_hooks = [*_base_.custom_hooks, {{_base_.ema}}]
