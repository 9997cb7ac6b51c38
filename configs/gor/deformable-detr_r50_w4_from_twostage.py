"""Deformable DETR-R50 at W4A4 learns from the refined two-stage one (COCO).

The four outputs of the neck, which the encoder reads, are distilled.
docs/support.md lists the parts of a transformer that stay in float.
"""

_base_ = [
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    '../_base_/gor/w4.py',
]
_base_.merge(_base_.pop('gor'))

quant = _base_.quant
model = dict(
    detector='QuantDeformableDETR',
    quant=quant,
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='ChannelMapper', quant=quant),
    bbox_head=dict(type='QuantHead', head='DeformableDETRHead', quant=quant),
    teachers=dict(
        twostage=dict(
            config='mmdet::deformable_detr/'
            'deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v3.0/'
            'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_'
            'coco/'
            'deformable-detr-refine-twostage_r50_16xb2-50e_coco_20221021_'
            '184714-acc8a5ff.pth',
        )
    ),
    kd_heads=dict(
        neck=dict(
            type='FeatureKDHead',
            student_channels=256,
            strides=(8, 16, 32, 64),
        )
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/'
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco/'
    'deformable-detr_r50_16xb2-50e_coco_20221029_210934-6bc7d21b.pth'
)
optim_wrapper = dict(
    optimizer=dict(weight_decay=1e-4),  # as in the stock recipe
    # mmengine applies the longest key that matches: this stock one, not
    # '_quantizer.', holds for the step sizes of these layers.
    paramwise_cfg=dict(
        custom_keys={'reference_points': dict(lr_mult=0.1, decay_mult=0.0)}
    ),
)
# The stock 50 epochs, shortened, since training starts from their result.
train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1,
    )
]
