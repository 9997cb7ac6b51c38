"""As yolox_nano_w8.py, at W6A6; it starts from the float network, too."""

_base_ = './yolox_nano_w8.py'

quant = dict(w_bits=6, a_bits=6)
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
