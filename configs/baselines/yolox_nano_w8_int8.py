"""QAT without KD: YOLOX-nano at W8A8 as integer runtimes compute it.

Every tensor is rounded, with one scale and one zero point. So one student fits
all targets with zero points: LiteRT, Ethos-U, XNNPACK, QNN, RKNN and x86.
Channels of very different width are equalized before calibration, and ranges
are chosen by what the loss depends on (docs/results/yolox_nano.md).
"""

_base_ = './yolox_nano_w8.py'

quant = dict(per_channel_depthwise=False, target='litert')
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
)
# Activation -> the depthwise convolution that reads it.
equalize = {
    'backbone.stem.conv': ['backbone.stage1.0.depthwise_conv'],
    'backbone.stage1.1.final_conv': ['backbone.stage2.0.depthwise_conv'],
    'backbone.stage1.1.blocks.0.conv1': [
        'backbone.stage1.1.blocks.0.conv2.depthwise_conv'
    ],
    'backbone.stage2.1.blocks.0.conv1': [
        'backbone.stage2.1.blocks.0.conv2.depthwise_conv'
    ],
    'backbone.stage2.1.blocks.1.conv1': [
        'backbone.stage2.1.blocks.1.conv2.depthwise_conv'
    ],
}
# Larger steps change the weights more than rounding asks for; step sizes take
# those of yolox_nano_w8.py.
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(custom_keys={'_quantizer.': dict(lr_mult=25.0)}),
)
calibration = dict(
    type='QuantCalibrationHook', equalize=equalize, loss_weighted=True
)
custom_hooks = [calibration, {{_base_.ema}}]
