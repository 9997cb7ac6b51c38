"""QAT without KD: the two-stage detector at W4A4, every tensor on a grid.

An exported file has backbone, neck and RPN; PyTorch runs the RoI head.
"""

_base_ = './faster_rcnn_mbv2.py'
quant = dict(w_bits=4, a_bits=4)
dense = dict(quant, tensors='all')
model = dict(
    backbone=dict(type='QuantBackbone', backbone='MobileNetV2', quant=dense),
    neck=dict(type='QuantNeck', neck='FPN', quant=dense),
    rpn_head=dict(type='QuantHead', head='RPNHead', quant=dense),
    roi_head=dict(
        bbox_head=dict(type='QuantHead', head='Shared2FCBBoxHead', quant=quant)
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'_quantizer.': dict(decay_mult=0.0)})
)
custom_hooks = [dict(type='QuantCalibrationHook')]
