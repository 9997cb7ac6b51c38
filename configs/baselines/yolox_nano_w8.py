"""QAT without KD: YOLOX-nano at W8A8.

Input quantizers have an offset (LSQ+), since SiLU has a short negative tail,
and one scale per channel in depthwise convolutions. Batch norm keeps the float
network's statistics.
"""

_base_ = '../_base_/models/yolox_nano_r320.py'

quant = dict(
    w_bits=8,
    a_bits=8,
    input_quantizer=dict(type='LSQPlusQuantizer'),
    per_channel_depthwise=True,
)
norm_cfg = dict(_delete_=True, type='EvalBN', eps=0.001)
model = dict(
    backbone=dict(
        type='QuantBackbone',
        backbone='CSPDarknet',
        frozen_stages=0,
        quant=quant,
        norm_cfg=norm_cfg,
    ),
    neck=dict(
        type='QuantNeck',
        neck='YOLOXPAFPN',
        quant=quant,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        type='QuantHead',
        head='YOLOXHead',
        quant=quant,
        norm_cfg=norm_cfg,
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'_quantizer.': dict(lr_mult=5.0, decay_mult=0.0)}
    )
)
custom_hooks = [dict(type='QuantCalibrationHook'), {{_base_.ema}}]
