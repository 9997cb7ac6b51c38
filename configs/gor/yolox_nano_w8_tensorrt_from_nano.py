"""As yolox_nano_w8_int8_from_nano.py, for TensorRT: no zero points, and what
SiLU reads is not rounded."""

_base_ = './yolox_nano_w8_int8_from_nano.py'

quant = dict(input_quantizer=dict(type='LSQQuantizer'), target='tensorrt')
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
