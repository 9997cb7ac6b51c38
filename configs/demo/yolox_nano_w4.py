"""QAT without KD: YOLOX-nano at W4A4.

The first convolution and the prediction layers have 8 bits. Input quantizers
have an offset (LSQ+), since Swish has a short negative tail, and one scale per
channel in depthwise convolutions.
"""

_base_ = './yolox_nano.py'
quant = dict(
    w_bits=4,
    a_bits=4,
    input_quantizer=dict(type='LSQPlusQuantizer'),
    per_channel_depthwise=True,
)
model = dict(
    backbone=dict(type='QuantBackbone', backbone='CSPDarknet', quant=quant),
    neck=dict(type='QuantNeck', neck='YOLOXPAFPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='YOLOXHead', quant=quant),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'_quantizer.': dict(decay_mult=0.0)})
)
custom_hooks = [dict(type='QuantCalibrationHook')]
