"""QAT and KD with a fixed weight. Sweep it before you compare it with GoR:

--cfg-options model.gor_weighting.kd_weight=0.3
"""

_base_ = '../gor/retinanet_r18_w4_from_r101.py'

model = dict(
    gor_weighting=dict(_delete_=True, type='FixedWeighting', kd_weight=1.0)
)
