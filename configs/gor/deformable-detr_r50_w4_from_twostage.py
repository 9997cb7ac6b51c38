"""Deformable DETR-R50 at W4A4 learns from the refined two-stage one (COCO).

The encoder's input, the neck's four maps, is distilled. docs/support.md says
what of a transformer stays in float.
"""

_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
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
        ),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/'
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco/'
    'deformable-detr_r50_16xb2-50e_coco_20221029_210934-6bc7d21b.pth'
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        custom_keys={
            '_quantizer.': dict(decay_mult=0.0),
            'gor_weighting.': dict(decay_mult=0.0),
            # Longer than '_quantizer.', so that it wins over it.
            'reference_points': dict(lr_mult=0.1, decay_mult=0.0),
        }
    ),
)
# The stock 50 epochs, shortened: training starts from their result.
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
custom_hooks = [
    dict(type='QuantCalibrationHook'),
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
]
