"""Refuses ways to train that a student can't be trained in."""

from collections.abc import Iterator
from typing import Any

from mmengine.device import get_device
from mmengine.dist import is_distributed

from mmgor.io.config_reader import type_name

#: Strategies and model wrappers that give each process a part of a tensor.
SPLITTING = (
    'FSDPStrategy',
    'DeepSpeedStrategy',
    'ColossalAIStrategy',
    'MMFullyShardedDataParallel',
    'MMDeepSpeedEngineWrapper',
    'CollosalAIModelWrapper',
)
_STUDENTS = ('GoR', 'Quant')


def check_strategy(cfg: Any) -> None:
    """Refuse a config before anything is built.

    Args:
        cfg (Config): Of a training or a test.

    Raises:
        ValueError: If a student's parameters would be split.
        RuntimeError: If several processes are to train without a GPU.
    """
    student = any(
        name.startswith(_STUDENTS) for name in _types(cfg.get('model'))
    )
    for key in ('strategy', 'model_wrapper_cfg'):
        for name in _types(cfg.get(key)) if student else ():
            refuse_splitting(name, f'{key}=dict(type={name!r})')
    alone = cfg.get('launcher', 'none') in ('none', None)
    if not alone and not is_distributed() and get_device() == 'cpu':
        raise RuntimeError(
            f'launcher={cfg.launcher!r} expected a GPU for each process, got '
            'a machine without one (mmengine starts processes on GPUs only). '
            'To train on the CPU, leave out --launcher.'
        )


def refuse_splitting(name: str, what: str) -> None:
    """Refuse a strategy or wrapper that splits tensors.

    Args:
        name (str): Name of its class.
        what (str): Where it comes from, for the message.

    Raises:
        ValueError: If it is one of ``SPLITTING``.
    """
    if name not in SPLITTING:
        return
    raise ValueError(
        f'{what} splits parameters over the processes; a student expected '
        'whole ones: calibration reads them outside of a training step, and '
        'the thetas are scalars, which FSDP refuses. Remove it: without '
        'strategy and model_wrapper_cfg, --launcher pytorch trains by DDP, '
        'with the whole student on each GPU.'
    )


def _types(tree: Any) -> Iterator[str]:
    """Names of all types in a config without their scopes, at any depth."""
    if isinstance(tree, dict):
        yield type_name(tree)
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _types(part)
