"""An arm's complete config, with markers in place of paths.

``<data:NAME>`` and ``<run:NAME>`` are folders, ``<weights:NAME>`` is a file;
options of a plan may use the last.
"""

import inspect
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.runner import Runner

from mmgor.demo.arms import data_options, set_epochs
from mmgor.demo.data import DataFolder
from mmgor.io.config_reader import type_name

from .plan import FLOAT, Arm, Plan

# What a config need not have: the runner has a default for it.
_RUNNER_KEYS = {*inspect.signature(Runner).parameters, 'custom_imports'}
# Filled in after the options.
_FILLED_IN = {
    'randomness.seed': 'seeds',
    'train_cfg.max_epochs': 'epochs',
    'train_cfg.val_interval': 'epochs',
    'work_dir': 'results',
}
_MARKER = re.compile(r'<(data|weights|run):([^<>]*)>')


class Source(NamedTuple):
    """Config and last weights of a run that another one needs."""

    config: str
    checkpoint: str


def complete_config(
    plan: Plan,
    arm: Arm,
    data: str,
    bits: str,
    seed: int,
    sources: dict[str, Source],
) -> dict[str, Any]:
    """The config of one run: the arm's, then the data, the options of the
    bits, those of the arm, the epochs, and last what it needs of others.

    Args:
        plan (Plan): Whose arm it is.
        arm (Arm): To be trained.
        data (str): Name of the data.
        bits (str): Name of the bits, or 'float'.
        seed (int): Of the run.
        sources (dict[str, Source]): For each name in ``arm.needs``.

    Raises:
        ValueError: If the arm's config is not one that can be filled in.
    """
    cfg = deepcopy(arm.base)
    _check_bits(cfg, bits, arm)
    _fill_data(cfg, plan.data[data], data, arm)
    for options in (plan.bits.get(bits, {}), arm.options):
        _merge(cfg, options, arm)
    cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if arm.epochs:
        set_epochs(cfg, arm.epochs)
    else:
        _calibrate_only(cfg)
    if arm.start is not None:
        if 'load_from' in arm.options:
            raise ValueError(
                f'arm {arm.name!r} has both start and the option load_from; '
                'remove one.'
            )
        cfg.load_from = sources[arm.start].checkpoint
    for slot, teacher in arm.teachers.items():
        slots = cfg.model.get('teachers', {})
        if slot not in slots:
            raise ValueError(
                f'arm {arm.name!r} fills teacher {slot!r} in; {arm.config} '
                f'has {list(slots)}.'
            )
        slots[slot].update(sources[teacher]._asdict())
    cfg.pop('work_dir', None)
    return cfg.to_dict()


def weights_in(config: dict[str, Any]) -> set[str]:
    """Names of the ``<weights:NAME>`` in a config."""
    found = _MARKER.findall(json.dumps(config, default=repr))
    return {name for kind, name in found if kind == 'weights'}


def fill_in(value: Any, path_of: Callable[[str, str], Path]) -> Any:
    """A config, or a part of it, with paths in place of markers.

    Args:
        value (Any): The config.
        path_of (Callable): Kind ('data', 'weights', 'run') and name to path.
    """
    if isinstance(value, dict):
        return {key: fill_in(part, path_of) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(fill_in(part, path_of) for part in value)
    if isinstance(value, str):
        return _MARKER.sub(lambda m: str(path_of(m[1], m[2])), value)
    return value


def _fill_data(cfg: Config, data: DataFolder, name: str, arm: Arm) -> None:
    for split, position in (('train', 2), ('val', 1), ('test', 1)):
        steps = cfg[f'{split}_dataloader'].dataset.get('pipeline', [])
        types = [type_name(step) for step in steps]
        if types[position : position + 1] != ['Resize']:
            raise ValueError(
                f'{arm.config}: expected Resize as step {position} (from 0) '
                f'of the {split} pipeline, got {types}; a plan fills in '
                'configs like configs/demo/*.py.'
            )
    if 'bbox_head' not in cfg.model:
        raise ValueError(
            f'{arm.config}: expected model.bbox_head, where num_classes is '
            f'filled in, got {list(cfg.model)}.'
        )
    options = data_options(replace(data, root=Path(f'<data:{name}>')))
    options['model.bbox_head.num_classes'] = len(data.classes)
    cfg.merge_from_dict(options)


def _merge(cfg: Config, options: dict[str, Any], arm: Arm) -> None:
    filled_in = dict(_FILLED_IN)
    last = len(cfg.get('param_scheduler', [])) - 1
    for part in ('end', 'T_max'):
        filled_in[f'param_scheduler.{last}.{part}'] = 'epochs'
    for slot in arm.teachers:
        for part in Source._fields:
            filled_in[f'model.teachers.{slot}.{part}'] = 'teachers'
    for key in options:
        head, dot, _ = key.partition('.')
        if head not in cfg and (dot or head not in _RUNNER_KEYS):
            raise ValueError(
                f'arm {arm.name!r}: option {key!r} would change nothing, '
                f'since {arm.config} has no {head!r}.'
            )
    for key in _leaves(options):
        if key in filled_in:
            raise ValueError(
                f'arm {arm.name!r}: option {key!r} is filled in from the '
                f'plan; use {filled_in[key]} there.'
            )
    try:
        cfg.merge_from_dict(deepcopy(options))
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f'arm {arm.name!r}: {arm.config} does not take the options '
            f'{sorted(options)}: {error}'
        ) from error


def _leaves(options: dict[str, Any]) -> list[str]:
    """Dotted keys, also of mappings within."""
    keys = []
    for key, value in options.items():
        inner = _leaves(value) if isinstance(value, dict) else []
        keys += [f'{key}.{each}' for each in inner] or [key]
    return keys


def _check_bits(cfg: Config, bits: str, arm: Arm) -> None:
    parts = [part for part in cfg.model.values() if isinstance(part, dict)]
    quantized = any('quant' in part for part in (cfg.model, *parts))
    if quantized and bits == FLOAT:
        raise ValueError(
            f'arm {arm.name!r} names no bits, but {arm.config} is quantized; '
            'name them, e.g. bits: [W4A4].'
        )
    if not quantized and bits != FLOAT:
        raise ValueError(
            f'arm {arm.name!r} has bits {bits}, but {arm.config} is not '
            'quantized; leave its bits out.'
        )


def _calibrate_only(cfg: Config) -> None:
    cfg.train_cfg = dict(type='CalibrationLoop', max_epochs=0)
    imports = cfg.get('custom_imports', {}).get('imports', [])
    cfg.custom_imports = dict(
        imports=[*imports, 'mmgor.ledger.calibration_loop']
    )
    # An average of no steps: its copy would never see the calibrated ranges.
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks', [])
        if type_name(hook) != 'EMAHook'
    ]
