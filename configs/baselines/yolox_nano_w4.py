"""As yolox_nano_w8.py, at W4A4; it starts from the float network, too, whose
weights and batch norms are fitted to rounding before."""

_base_ = './yolox_nano_w8.py'

quant = dict(w_bits=4, a_bits=4)
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
calibration = dict(
    type='QuantCalibrationHook', correct_norms=True, compensate_weights=True
)
custom_hooks = [calibration, {{_base_.ema}}]
