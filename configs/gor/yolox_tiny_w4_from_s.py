"""YOLOX-tiny at W4A4 learns from YOLOX-s (COCO), with mosaic, multi-scale
batches and EMA as in the stock recipe.
"""

_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

# Swish has a short negative tail: inputs get an offset (LSQ+).
quant = dict(w_bits=4, a_bits=4, input_quantizer=dict(type='LSQPlusQuantizer'))
model = dict(
    type='GoRDetector',
    detector='YOLOX',
    backbone=dict(type='QuantBackbone', backbone='CSPDarknet', quant=quant),
    neck=dict(type='QuantNeck', neck='YOLOXPAFPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='YOLOXHead', quant=quant),
    teachers=dict(
        s=dict(
            config='mmdet::yolox/yolox_s_8xb8-300e_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'yolox/yolox_s_8x8_300e_coco/'
            'yolox_s_8x8_300e_coco_20211121_095711-4592a793.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(
            type='FeatureKDHead',
            student_channels=96,
            teacher_channels=128,
            strides=(8, 16, 32),
        ),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'yolox/yolox_tiny_8x8_300e_coco/'
    'yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'
)
# Step sizes hardly move under SGD (docs/design.md).
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            '_quantizer.': dict(decay_mult=0.0),
            'gor_weighting.': dict(decay_mult=0.0),
        }
    ),
)
# The stock 300 epochs, shortened: training starts from their result.
train_cfg = dict(max_epochs=30, val_interval=5)
param_scheduler = [
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
]
custom_hooks = [
    dict(type='YOLOXModeSwitchHook', num_last_epochs=3, priority=48),
    dict(type='SyncNormHook', priority=48),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0001,
        update_buffers=True,
        priority=49,
    ),
    dict(type='QuantCalibrationHook'),
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
]
