"""As retinanet_r18_w4_from_r101.py, at W8A8."""

_base_ = './retinanet_r18_w4_from_r101.py'

quant = dict(w_bits=8, a_bits=8)
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
