"""As yolox_nano_w6_from_nano.py, without data: on synthesised images alone.

    mmgor synthesize configs/baselines/yolox_nano_float.py \\
        weights/yolox_nano.pth --out data/synthetic --images 256 \\
        --size 256 256

writes them. Nothing is evaluated in training; ``mmgor test`` does it, where
there are photos.
"""

_base_ = './yolox_nano_w6_from_nano.py'

train_dataloader = dict(
    dataset=dict(
        data_root='data/synthetic/',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = val_evaluator = val_cfg = None

max_epochs = 12  # of 32 steps with 256 images
train_cfg = dict(max_epochs=max_epochs)
_base_.param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(custom_keys={'_quantizer.': dict(lr_mult=25.0)}),
)
custom_hooks = [
    dict(
        type='QuantCalibrationHook',
        correct_norms=True,
        compensate_weights=True,
    ),
    *_base_.custom_hooks[1:],
]
