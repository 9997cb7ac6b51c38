"""A student and a teacher of two stages each, trained for a few steps.

What the campaigns share that try broken numbers and changed configs.
"""

import copy
import os
from pathlib import Path
from typing import Any

os.environ.setdefault('TORCHDYNAMO_DISABLE', '1')  # compiling takes longer
os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch
from mmdet.utils import register_all_modules
from mmengine.runner import Runner
from torch.utils.data import Dataset

import mmgor  # noqa: F401
from mmgor.registry import MODELS
from tests.support.models import make_batch, retinanet_cfg

torch.set_num_threads(1)
register_all_modules()

CLASSES = ('disc', 'square', 'triangle')
STRIDES = [8, 16]


class Images(Dataset):
    """Two images of 64 x 64 pixels with two boxes each."""

    metainfo = dict(classes=CLASSES)

    def __init__(self) -> None:
        batch = make_batch(2)
        images = (batch['inputs'] * 60 + 120).clamp(0, 255).byte()
        self.items = [
            dict(inputs=x, data_samples=sample)
            for x, sample in zip(images, batch['data_samples'])
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return copy.deepcopy(self.items[index])


def save_teacher(folder: Path) -> dict[str, Any]:
    """Settings of a tiny float teacher, with its weights in a folder."""
    torch.manual_seed(1)
    cfg = shallow(retinanet_cfg(channels=12, fpn=24))
    model = MODELS.build(cfg)
    path = folder / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return dict(config=dict(model=cfg), checkpoint=str(path))


def shallow(cfg: Any) -> Any:
    """A RetinaNet of two stages and two levels, in place of four and five."""
    cfg.backbone.update(num_stages=2, out_indices=(0, 1), strides=(1, 2))
    cfg.backbone.dilations = (1, 1)
    cfg.neck.update(in_channels=cfg.neck.in_channels[:2], num_outs=2)
    cfg.bbox_head.anchor_generator.strides = STRIDES
    return cfg


def make_runner(
    model: Any, folder: Path, name: str, hooks: list, **changes: Any
) -> Runner:
    """A training of two steps on one image each.

    Args:
        model (dict): Config of the student.
        folder (Path): Work directory.
        name (str): Of the run; each in a process has its own.
        hooks (list): ``custom_hooks``.
        **changes: Other arguments of the Runner.
    """
    settings = dict(
        train_dataloader=dict(
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            num_workers=0,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-3),
            clip_grad=dict(max_norm=10.0),
        ),
        default_hooks=dict(checkpoint=None, logger=None),
        default_scope='mmdet',
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    return Runner(
        model,
        str(folder),
        custom_hooks=hooks,
        experiment_name=name,
        **(settings | changes),
    )
