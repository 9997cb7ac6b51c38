"""Checks of a config's model and of the checkpoints that it names."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmgor.io.checkpoint import check_sound
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.io.class_names import loader_classes
from mmgor.io.config_reader import model_config, type_name
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS

from .findings import ERROR, OK, WARNING, Finding, guarded, quiet

_SHOWN = 3
_LATER = 'is a URL; it is downloaded when training starts'
_GIVE = 'give a checkpoint of this architecture, or remove the line'
#: Share of the weights that a checkpoint to start from should have.
MOST = 0.9


def build_model(cfg: Config) -> Any:
    """The config's model, without the files of its ``init_cfg``."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    return MODELS.build(model_config(cfg))


def model_findings(cfg: Config, model: Any) -> Iterator[Finding]:
    """The model, its hooks and the checkpoints that the config names."""
    params = sum(p.numel() for p in model.parameters())
    layers = len(quantized_layers(model))
    yield Finding(
        OK,
        'model',
        f'{type(model).__name__}, {params / 1e6:.2f} M parameters, {layers} '
        'quantized layers',
    )
    yield from _hooks(cfg, model, layers)
    start = cfg.get('load_from')
    if start:
        what = 'load_from'
        check = partial(_weights, what, model, start, '')
        yield from guarded(what, check, _GIVE)
    elif layers:
        yield Finding(
            WARNING,
            'load_from',
            'none: a quantized student learns best from its trained float '
            'network',
            "write load_from = '<checkpoint of the float student>'",
        )
    for path, init in _initialised(cfg.get('model') or {}, 'model'):
        what = f'{path}.init_cfg'
        check = partial(
            _weights,
            what,
            _submodule(model, path),
            init['checkpoint'],
            init.get('prefix') or '',
        )
        yield from guarded(what, check, _GIVE)
    yield from _teachers(cfg, model)


def _hooks(cfg: Config, model: Any, layers: int) -> Iterator[Finding]:
    names = {type_name(hook) for hook in cfg.get('custom_hooks') or []}
    wanted = dict(
        QuantCalibrationHook=bool(layers),
        GoRWeightHook=hasattr(model, 'gor_weighting'),
    )
    for hook, needed in wanted.items():
        if needed and hook not in names:
            yield Finding(
                ERROR,
                'custom_hooks',
                f'{hook} is missing; got {sorted(names)}',
                f"add dict(type='{hook}') to custom_hooks",
            )


def _initialised(part: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Path and ``init_cfg`` of each part with pretrained weights."""
    if isinstance(part, (list, tuple)):
        part = dict(enumerate(part))
    if not isinstance(part, dict):
        return
    inits = part.get('init_cfg')
    for init in inits if isinstance(inits, list) else [inits]:
        if isinstance(init, dict) and init.get('checkpoint'):
            yield path, init
    for key, value in part.items():
        # Teachers have the weights of their checkpoints.
        if key not in ('init_cfg', 'teachers'):
            yield from _initialised(value, f'{path}.{key}')


def _submodule(model: Any, path: str) -> Any:
    """The module at a path of the config, or None where it has another."""
    name = path.partition('.')[2]
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _weights(
    what: str, model: nn.Module | None, path: str, prefix: str
) -> Iterator[Finding]:
    """Whether a file is there, loads and has the weights of a module."""
    if is_remote(path):
        yield Finding(OK, what, f'{path} {_LATER}')
        return
    state_dict, _ = read_state_dict(path)
    name = Path(path).name
    if model is None:
        yield Finding(OK, what, f'{name} loads')
        return
    own = {
        key: value
        for key, value in model.state_dict().items()
        if '_quantizer.' not in key
        and not key.startswith(('kd_heads.', 'gor_weighting.'))
        and not key.endswith('num_batches_tracked')
    }
    if prefix:
        dotted = prefix.rstrip('.') + '.'
        state_dict = {
            key.removeprefix(dotted): value
            for key, value in state_dict.items()
            if key.startswith(dotted)
        }
    check_sound(own, state_dict, f'checkpoint {path}')
    shapes = {k: tuple(getattr(v, 'shape', ())) for k, v in state_dict.items()}
    lacking = [k for k, v in own.items() if shapes.get(k) != tuple(v.shape)]
    share = 1 - len(lacking) / max(1, len(own))
    text = f'{name} has {share:.0%} of the {len(own)} weights'
    if lacking:
        text += f', not {_few(lacking)}'
    if share >= MOST:
        yield Finding(OK, what, text)
        return
    yield Finding(
        WARNING if share > 0 else ERROR,
        what,
        f'{text}; it has e.g. {_few(list(shapes))}',
        _GIVE,
    )


def is_remote(path: str) -> bool:
    """Whether a checkpoint would have to be downloaded.

    Args:
        path (str): File, URL, or another address that mmengine knows.
    """
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / Path(path).name
    return '://' in path and not cached.is_file()


def _few(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    more = f' and {rest} more' if rest > 0 else ''
    return ', '.join(names[:_SHOWN]) + more


def _teachers(cfg: Config, model: Any) -> Iterator[Finding]:
    """Whether each teacher builds, loads and knows the classes."""
    teachers = getattr(model, 'teachers', {})
    classes = loader_classes(cfg, 'train_dataloader') if teachers else None
    for name, teacher in teachers.items():
        what = f'teacher {name}'

        yield from guarded(
            what,
            partial(_teacher, what, teacher, classes),
            f'correct teachers=dict({name}=dict(config=..., checkpoint=...))',
        )


def _teacher(what: str, teacher: Any, classes: Any) -> Iterator[Finding]:
    if is_remote(teacher.checkpoint):
        yield Finding(OK, what, f'{teacher.checkpoint} {_LATER}')
        return
    with quiet():
        teacher.build(torch.device('cpu'))
    teacher.class_index(classes)
    kind = type(teacher.model).__name__
    yield Finding(OK, what, f'{kind} from {teacher.checkpoint}, complete')
