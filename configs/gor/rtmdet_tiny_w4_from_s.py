"""RTMDet-tiny at W4A4 learns from RTMDet-s (COCO).

Cached mosaic, MixUp and EMA are as in the stock recipe.
"""

_base_ = [
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    '../_base_/gor/w4.py',
]
_base_.merge(_base_.pop('gor'))

# SiLU has a short negative tail: inputs get an offset (LSQ+).
quant = dict(w_bits=4, a_bits=4, input_quantizer=dict(type='LSQPlusQuantizer'))
model = dict(
    detector='RTMDet',
    backbone=dict(
        type='QuantBackbone', backbone='CSPNeXt', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='CSPNeXtPAFPN', quant=quant),
    bbox_head=dict(type='QuantHead', head='RTMDetSepBNHead', quant=quant),
    teachers=dict(
        s=dict(
            config='mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v3.0/'
            'rtmdet/rtmdet_s_8xb32-300e_coco/'
            'rtmdet_s_8xb32-300e_coco_20220905_161602-387a891e.pth',
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
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/'
    'rtmdet/rtmdet_tiny_8xb32-300e_coco/'
    'rtmdet_tiny_8xb32-300e_coco_20220902_112414-78e30dcc.pth'
)
# The stock 300 epochs, shortened, since training starts from their result.
train_cfg = dict(max_epochs=30, val_interval=5, dynamic_intervals=[(28, 1)])
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=15,
        end=30,
        T_max=15,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    # The stock hooks; mosaic and MixUp are off in the last 2 epochs.
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        update_buffers=True,
        priority=49,
    ),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=28,
        switch_pipeline={{_base_.train_pipeline_stage2}},
    ),
    *_base_.custom_hooks,
]
