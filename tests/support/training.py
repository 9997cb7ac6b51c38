"""A complete, tiny training config for end-to-end tests."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmgor.datasets import SceneSpec, generate_scenes
from mmgor.datasets.shapes import CLASSES
from mmgor.registry import MODELS
from tests.support.models import retinanet_cfg, student_cfg


def tiny_scenes(folder: Path) -> Path:
    """Eight training and four evaluation scenes of 64 px."""
    return generate_scenes(
        folder, SceneSpec(num_train=8, num_eval=4, size=64, max_objects=3)
    )


def scene_teacher(folder: Path) -> dict[str, Any]:
    """Config and checkpoint of a tiny float teacher of the scenes' classes."""
    torch.manual_seed(1)
    cfg = retinanet_cfg(channels=12, fpn=24, classes=len(CLASSES))
    path = folder / 'teacher.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    return dict(config=cfg, checkpoint=str(path))


def dataset(root: Path, split: str) -> dict[str, Any]:
    pipeline: list[dict] = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
    ]
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pipeline.append(dict(type='PackDetInputs', meta_keys=keys))
    return dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file=f'{split}.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        test_mode=split == 'eval',
        pipeline=pipeline,
    )


def loader(root: Path, split: str) -> dict[str, Any]:
    return dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
        dataset=dataset(root, split),
    )


def training_config(
    root: Path, work_dir: Path, teacher: dict, epochs: int = 1
) -> Config:
    """Train a W4A4 student on scenes for a few iterations."""
    model = student_cfg(teacher)
    model.bbox_head.num_classes = len(CLASSES)
    evaluator = dict(
        type='CocoMetric', ann_file=str(root / 'eval.json'), metric='bbox'
    )
    return Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['mmgor']),
            model=model,
            train_dataloader=loader(root, 'train'),
            val_dataloader=loader(root, 'eval'),
            test_dataloader=loader(root, 'eval'),
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            train_cfg=dict(
                type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=99
            ),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                paramwise_cfg=dict(
                    custom_keys={
                        'gor_weighting.': dict(decay_mult=0.0),
                        '_quantizer.': dict(decay_mult=0.0),
                    }
                ),
            ),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', interval=1),
            ),
            custom_hooks=[
                dict(type='QuantCalibrationHook', num_batches=1),
                dict(type='GoRWeightHook'),
                dict(type='NonFiniteLossHook', max_consecutive=2),
            ],
            visualizer=dict(
                type='DetLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
                name=f'visualizer_{work_dir.name}',
            ),
            env_cfg=dict(dist_cfg=dict(backend='gloo')),
            randomness=dict(seed=0),
            log_level='ERROR',
            work_dir=str(work_dir),
            experiment_name=work_dir.name,
        )
    )


def config_file(folder: Path) -> Path:
    """The tiny config, its scenes and its teacher as files in ``folder``.

    It has no work directory, and draws what it detects.
    """
    torch.manual_seed(1)
    teacher = retinanet_cfg(channels=12, fpn=24, classes=len(CLASSES))
    spec = dict(
        config=str(folder / 'teacher.py'),
        checkpoint=str(folder / 'teacher.pth'),
    )
    torch.save(MODELS.build(teacher).state_dict(), spec['checkpoint'])
    Config(dict(model=teacher)).dump(spec['config'])
    config = training_config(
        tiny_scenes(folder / 'scenes'), folder / 'unset', spec
    )
    config.pop('work_dir')
    config.default_hooks.visualization = dict(type='DetVisualizationHook')
    config.auto_scale_lr = dict(enable=False, base_batch_size=16)
    config.dump(folder / 'tiny.py')
    return folder / 'tiny.py'
