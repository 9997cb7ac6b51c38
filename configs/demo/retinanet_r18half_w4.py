"""QAT without KD: the student at W4A4.

The first convolution and the prediction layers have 8 bits.
"""

_base_ = './retinanet_r18half.py'
quant = dict(w_bits=4, a_bits=4)
model = dict(
    backbone=dict(type='QuantBackbone', backbone='ResNet', quant=quant),
    neck=dict(type='QuantNeck', neck='FPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='RetinaHead', quant=quant),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'_quantizer.': dict(decay_mult=0.0)})
)
custom_hooks = [dict(type='QuantCalibrationHook')]
