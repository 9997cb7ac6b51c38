"""Shortens or lengthens the training of a base config."""

from math import inf
from typing import Any

from mmgor.io.config_reader import type_name
from mmgor.io.config_values import integer

from .source import Code

#: Settings of a scheduler that count epochs.
_POINTS = ('begin', 'end', 'T_max')
#: Most of a training that its warm-up may take.
WARM_UP = 0.1
#: Settings of hooks that count epochs: from the start, and from the end.
_SWITCHES = ('switch_epoch', 'num_last_epochs')
#: Hooks that merge branches into new layers, which are not quantized.
_REBUILDING = ('SwitchToDeployHook',)
#: The same of MMYOLO's hooks that take the place of schedulers.
_OF_YOLOV5 = 'YOLOv5ParamSchedulerHook'
_LENGTHS = ('max_epochs', 'total_epochs', 'warmup_epochs')


def epochs_of(cfg: Any) -> int | None:
    """How many epochs a config trains; None if it counts iterations."""
    found = (cfg.get('train_cfg') or {}).get('max_epochs')
    return int(found) if found else None


def scaled_schedule(
    cfg: Any, epochs: int | None, iterations: int | None = None
) -> dict[str, Any]:
    """The entries that change the length of a training.

    Milestones and ends of schedulers, warm-up and evaluation are scaled
    alike. A warm-up takes at most :data:`WARM_UP` of the training.

    Args:
        cfg (Config): The base config.
        epochs (int, optional): The new length; None: as before.
        iterations (int, optional): Iterations of an epoch, if known.

    Returns:
        dict[str, Any]: ``train_cfg`` and ``param_scheduler`` as a config
        writes them, where they change.

    Raises:
        ValueError: If the config counts iterations, or ``epochs`` is less
            than 1.
    """
    before = epochs_of(cfg)
    if epochs is not None and before is None:
        raise ValueError(
            '--epochs expected a config that counts epochs '
            '(train_cfg.max_epochs), got one that counts iterations: '
            f'{dict(cfg.get("train_cfg") or {})}. Change train_cfg and '
            'param_scheduler by hand.'
        )
    if before is None:
        return {}
    epochs = before if epochs is None else integer('--epochs', epochs, 1)
    ratio = epochs / before
    entries: dict[str, Any] = {}
    if epochs != before:
        entries['train_cfg'] = _loop(cfg.train_cfg, ratio)
    most = inf if iterations is None else WARM_UP * iterations * epochs
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    changed = [_scheduler(one, ratio, most) for one in schedulers]
    if any(changed):
        entries['param_scheduler'] = [
            _changed(f'_base_.param_scheduler[{i}]', change)
            for i, change in enumerate(changed)
            if _lasts(dict(schedulers[i], **change))
        ]
    return entries


def scheduler_hook(cfg: Any, epochs: int | None) -> dict[str, Any]:
    """What changes in ``default_hooks.param_scheduler``; {} if there is
    nothing.

    MMYOLO's hooks start the biases with a learning rate of their own, which
    is meant for SGD and would be far too large for AdamW.

    Args:
        cfg (Config): The base config.
        epochs (int, optional): The new length.
    """
    hook = (cfg.get('default_hooks') or {}).get('param_scheduler') or {}
    changed: dict[str, Any] = {}
    before = epochs_of(cfg)
    if epochs is not None and before:
        changed = {
            key: _scaled(hook[key], epochs / before)
            for key in _LENGTHS
            if hook.get(key)
        }
    if 'warmup_bias_lr' in hook or hook.get('type') == _OF_YOLOV5:
        changed['warmup_bias_lr'] = 0.0
    return changed


def _loop(train_cfg: dict, ratio: float) -> dict[str, Any]:
    changed: dict[str, Any] = dict(
        max_epochs=_scaled(train_cfg['max_epochs'], ratio)
    )
    if 'val_interval' in train_cfg:
        changed['val_interval'] = _scaled(train_cfg['val_interval'], ratio)
    intervals = train_cfg.get('dynamic_intervals')
    if intervals:
        changed['dynamic_intervals'] = [
            (_scaled(start, ratio), interval) for start, interval in intervals
        ]
    return changed


def _scheduler(scheduler: dict, ratio: float, most: float) -> dict[str, Any]:
    if not scheduler.get('by_epoch', True):
        end = scheduler.get('end')
        if not end or scheduler.get('begin'):  # no warm-up
            return {}
        wanted = max(1, round(min(end * min(1.0, ratio), most)))
        return {} if wanted >= end else dict(end=wanted)
    if ratio == 1:
        return {}
    changed: dict[str, Any] = {
        key: _scaled(scheduler[key], ratio)
        for key in _POINTS
        if scheduler.get(key)
    }
    if 'milestones' in scheduler:
        steps = [_scaled(m, ratio) for m in scheduler['milestones']]
        changed['milestones'] = sorted(dict.fromkeys(steps))
    return changed


def _lasts(scheduler: dict) -> bool:
    """Whether a scheduler has an epoch left; mmengine refuses it if not."""
    return scheduler.get('begin', 0) < scheduler.get('end', inf)


def _scaled(count: int, ratio: float) -> int:
    return max(1, round(count * ratio))


def _changed(base: str, changes: dict[str, Any]) -> Code:
    more = ''.join(f', {key}={value!r}' for key, value in changes.items())
    return Code(f'dict({base}{more})' if more else base)


def base_hooks(cfg: Any, epochs: int | None) -> list[Code]:
    """The base config's own hooks, as entries of a list.

    When they switch augmentation off is scaled with the training. Hooks that
    would put other layers in the place of quantized ones are left out.

    Args:
        cfg (Config): The base config.
        epochs (int, optional): The new length.
    """
    hooks = cfg.get('custom_hooks') or []
    before = epochs_of(cfg)
    ratio = epochs / before if epochs and before else 1.0
    kept = [
        (i, {k: _scaled(hook[k], ratio) for k in _SWITCHES if k in hook})
        for i, hook in enumerate(hooks)
        if type_name(hook) not in _REBUILDING
    ]
    whole = len(kept) == len(hooks)
    if whole and (ratio == 1.0 or not any(change for _, change in kept)):
        return [Code('*_base_.custom_hooks')] if hooks else []
    return [_changed(f'_base_.custom_hooks[{i}]', c) for i, c in kept]
