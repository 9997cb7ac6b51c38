"""As yolox_nano_w8_from_nano.py, at W4A4; boxes are distilled, too. It starts
from the float network, whose weights and batch norms are fitted to rounding
before.

4 bits on average, with more where they matter, cost less mAP:

    mmgor bits configs/gor/yolox_nano_w4_from_nano.py weights/yolox_nano.pth \\
        --mean-bits 4 --out yolox_nano_mean4.py
    mmgor train yolox_nano_mean4.py
"""

_base_ = [
    '../baselines/yolox_nano_w4.py',
    '../_base_/gor/yolox_nano_teacher.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(kd_heads=dict(box=dict(type='BoxKDHead')))
custom_hooks = [
    {{_base_.calibration}},
    *_base_.custom_hooks[1:],
    {{_base_.ema}},
]
