"""Checks that the checkpoints of a training fit on the disk."""

import shutil
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from .findings import ERROR, OK, WARNING, Finding

# AdamW keeps two numbers per parameter beside the weights.
_COPIES = 3


def disk_finding(cfg: Config, model: nn.Module, folder: Path) -> Finding:
    """Compare the free space with what the checkpoints will take.

    Args:
        cfg (Config): The config of the training.
        model (nn.Module): Its model.
        folder (Path): Work directory; need not exist.
    """
    place = next(
        p for p in [folder.resolve(), *folder.resolve().parents] if p.exists()
    )
    free = shutil.disk_usage(place).free
    one = _COPIES * sum(
        v.numel() * v.element_size() for v in model.state_dict().values()
    )
    count = _checkpoints(cfg)
    # A new one is complete before an old one goes.
    needed = (count + 1) * one
    text = (
        f'{free / 1e9:.1f} GB free in {place}; {count} checkpoint(s) of about '
        f'{one / 1e9:.2f} GB are kept'
    )
    if free > needed:
        return Finding(OK, 'disk', text)
    return Finding(
        ERROR if free < 2 * one else WARNING,
        'disk',
        text,
        'free some space, train elsewhere (--work-dir), or keep fewer: '
        'default_hooks=dict(checkpoint=dict(max_keep_ckpts=2))',
    )


def _checkpoints(cfg: Config) -> int:
    """How many checkpoints a training keeps, the best one included."""
    hooks: Any = cfg.get('default_hooks') or {}
    hook = hooks.get('checkpoint') or {}
    best = 1 if hook.get('save_best') else 0
    kept = hook.get('max_keep_ckpts', -1)
    if kept > 0:
        return kept + best
    loop = cfg.get('train_cfg') or {}
    length = loop.get('max_epochs') or loop.get('max_iters') or 1
    return max(1, length // max(1, hook.get('interval', 1))) + best
