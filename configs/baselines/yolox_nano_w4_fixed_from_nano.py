"""QAT and KD with a fixed weight. Sweep it before you compare it with GoR:

--cfg-options model.gor_weighting.kd_weight=0.3
"""

_base_ = '../gor/yolox_nano_w4_from_nano.py'

model = dict(
    gor_weighting=dict(_delete_=True, type='FixedWeighting', kd_weight=1.0)
)
