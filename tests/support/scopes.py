"""Configs of another library than mmdet, without that library."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet import registry as mmdet
from mmdet.datasets import CocoDataset
from mmdet.models import FPN, ResNet, RetinaHead, RetinaNet
from mmengine import registry as mmengine
from mmengine.registry import Registry
from torch import nn

SCOPE = 'downstream'
_STOCK = (
    mmdet.MODELS,
    mmdet.TASK_UTILS,
    mmdet.DATASETS,
    mmdet.TRANSFORMS,
    mmdet.METRICS,
    mmdet.VISUALIZERS,
)
CLASSES = ('ant', 'bee', 'fly')


@contextmanager
def downstream() -> Iterator[Registry]:
    """A package on top of mmdet, such as mmyolo, with names of its own.

    Yields:
        Registry: Its models.
    """
    models = Registry('model', parent=mmengine.MODELS, scope=SCOPE)
    datasets = Registry('dataset', parent=mmengine.DATASETS, scope=SCOPE)
    hooks = Registry('hook', parent=mmengine.HOOKS, scope=SCOPE)
    for name, base in (
        ('TheirBackbone', ResNet),
        ('TheirNeck', FPN),
        ('TheirHead', RetinaHead),
        ('TheirDetector', RetinaNet),
        # mmgor has this name, too.
        ('PKDLoss', nn.L1Loss),
        ('LSQQuantizer', nn.Identity),
    ):
        models.register_module(name=name, module=type(name, (base,), {}))
    names = dict(METAINFO=dict(classes=CLASSES))
    datasets.register_module(
        module=type('TheirDataset', (CocoDataset,), names)
    )
    try:
        yield models
    finally:
        for registry in (models, datasets, hooks):
            del registry.parent.children[SCOPE]


def with_prefixes(cfg: Any) -> Any:
    """The same config with the prefix 'mmdet.' before stock names."""
    if isinstance(cfg, dict):
        return type(cfg)({k: _prefixed(k, v) for k, v in cfg.items()})
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(map(with_prefixes, cfg))
    return cfg


def _prefixed(key: str, value: Any) -> Any:
    stock = ('type', 'detector', 'backbone', 'neck', 'head')
    if key not in stock or not isinstance(value, str):
        return with_prefixes(value)
    kinds = [registry.module_dict.get(value) for registry in _STOCK]
    theirs = [kind for kind in kinds if kind is not None]
    own = any(kind.__module__.startswith('mmgor.') for kind in theirs)
    return f'mmdet.{value}' if theirs and not own else value


def their_parts(cfg: Any, prefix: str = '') -> Any:
    """A quantized RetinaNet around the classes of :func:`downstream`."""
    cfg = with_prefixes(cfg)
    for key in ('backbone', 'neck', 'bbox_head'):
        part = cfg[key]
        argument = key.rpartition('_')[2]
        part[argument] = f'{prefix}Their{argument.capitalize()}'
    key = 'detector' if 'detector' in cfg else 'type'
    cfg[key] = f'{prefix}TheirDetector'
    return cfg
