"""YOLOX-nano, fine-tuned for 2 epochs at 320 px from the model zoo's weights.

``data_root`` is a folder with ``train.json``, ``eval.json`` and ``images/``.
There is no mosaic and no MixUp, since the network is trained already.
"""

_base_ = 'mmdet::yolox/yolox_nano_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)

data_root = 'data/coco_r320/'
img_scale = (320, 320)
pad = dict(
    type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    pad,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    pad,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        _delete_=True,
        type='CocoDataset',
        data_root=data_root,
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='eval.json',
        data_prefix=dict(img='images/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'eval.json')
test_evaluator = val_evaluator

model = dict(data_preprocessor=dict(batch_augments=None))
load_from = 'weights/yolox_nano.pth'

max_epochs = 2
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
# Inputs are 0 to 255, so this network's gradients have norms in the thousands;
# docs/results/yolox_nano.md explains the clip norm.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=1000, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min_ratio=0.02,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(
        type='SafeCheckpointHook', interval=max_epochs, max_keep_ckpts=2
    )
)
ema = dict(
    type='EMAHook', momentum=0.01, update_buffers=True, priority='NORMAL'
)
custom_hooks = [ema]
