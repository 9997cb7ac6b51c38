"""As retinanet_r18_w4_from_r101.py, at W2A2."""

_base_ = './retinanet_r18_w4_from_r101.py'

quant = dict(w_bits=2, a_bits=2)
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
