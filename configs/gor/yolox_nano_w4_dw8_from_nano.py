"""As yolox_nano_w4_from_nano.py, with depthwise convolutions at W8A8."""

_base_ = './yolox_nano_w4_from_nano.py'

quant = dict(overrides={'*depthwise_conv.conv': dict(w_bits=8, a_bits=8)})
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
