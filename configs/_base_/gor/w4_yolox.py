"""As w4.py, for YOLOX students: 30 epochs with the stock augmentation and EMA.

Class logits and neck features are distilled. The config adds ``teachers`` and,
in ``kd_heads.neck``, the channels of both necks.
"""

_base_ = './w4.py'

# Swish has a short negative tail: inputs get an offset (LSQ+).
quant = dict(w_bits=4, a_bits=4, input_quantizer=dict(type='LSQPlusQuantizer'))
gor = dict(
    model=dict(
        detector='YOLOX',
        backbone=dict(
            type='QuantBackbone', backbone='CSPDarknet', quant=quant
        ),
        neck=dict(type='QuantNeck', neck='YOLOXPAFPN', quant=quant),
        bbox_head=dict(type='QuantHead', head='YOLOXHead', quant=quant),
        kd_heads=dict(
            cls=dict(type='LogitKDHead'),
            neck=dict(type='FeatureKDHead', strides=(8, 16, 32)),
        ),
    ),
    # The stock 300 epochs, shortened, since training starts from their result.
    train_cfg=dict(max_epochs=30, val_interval=5),
    param_scheduler=[
        dict(
            type='QuadraticWarmupLR',
            by_epoch=True,
            begin=0,
            end=1,
            convert_to_iter_based=True,
        ),
        dict(
            type='CosineAnnealingLR',
            eta_min_ratio=0.05,
            begin=1,
            T_max=27,
            end=27,
            by_epoch=True,
            convert_to_iter_based=True,
        ),
        dict(type='ConstantLR', factor=1, by_epoch=True, begin=27, end=30),
    ],
    custom_hooks=[
        # The stock hooks; mosaic is off in the last 3 epochs.
        dict(type='YOLOXModeSwitchHook', num_last_epochs=3, priority=48),
        dict(type='SyncNormHook', priority=48),
        dict(
            type='EMAHook',
            ema_type='ExpMomentumEMA',
            momentum=0.0001,
            update_buffers=True,
            priority=49,
        ),
        *_base_.gor.custom_hooks,
    ],
)
