"""Reads checkpoints, and never runs what one of them asks for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmgor.compat import allow_mmengine_checkpoints

from .checkpoint import check_dense
from .checksums import check_intact

_FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def read_checkpoint(path: str | Path) -> Any:
    """What a checkpoint holds, on the CPU.

    Only tensors, numbers, names and mmengine's log are read, whatever the
    stack's own loader would do: onedl-mmengine unpickles a file that it could
    not read so, and torch.hub, which reads URLs, does from the first.

    Args:
        path (str | Path): File, URL, or another address that mmengine knows,
            such as 'open-mmlab://...'.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read, asks for anything else, or has
            weights far larger than the file.
    """
    path = str(path)
    if '://' not in path:
        loaded = load_from_local(path, 'cpu')
    else:
        with _protected():
            loaded = _load(path, CheckpointLoader.load_checkpoint, 'cpu')
    weights = _weights(loaded)
    if isinstance(weights, dict):
        check_dense(weights, path)
    return loaded


def read_state_dict(path: str | Path) -> tuple[dict[str, Any], Any]:
    """Weights and meta of a checkpoint, {} where it has none.

    Args:
        path (str | Path): See :func:`read_checkpoint`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As :func:`read_checkpoint`, and if it has no weights by
            name.
    """
    loaded = read_checkpoint(path)
    weights = named_weights(path, loaded)
    return weights, loaded.get('meta') or {}


def named_weights(path: str | Path, loaded: Any) -> dict[str, Any]:
    """The weights in what :func:`read_checkpoint` gave.

    Args:
        path (str | Path): For the message.
        loaded (dict): Weights, or a dict that has them as ``state_dict``.

    Raises:
        ValueError: If there are none, or not by name.
    """
    weights = _weights(loaded)
    if not isinstance(weights, dict):
        raise ValueError(
            f'{path} holds a {type(weights).__name__}; expected a dict of '
            'tensors or one with a state_dict, as tools/train.py writes it.'
        )
    unnamed = [key for key in weights if not isinstance(key, str)]
    if unnamed:
        raise ValueError(
            f'{path} has the keys {unnamed[:5]}, expected names of weights '
            "such as 'backbone.conv1.weight'."
        )
    return weights


def guard_local_files() -> None:
    """Let mmengine read local files by :func:`load_from_local`, whoever asks:
    a Runner, an ``init_cfg``, ``init_detector``.

    Whoever trusts all files of a run sets torch's own switch,
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``, and has the stack's loader, which
    still looks for damage first.
    """
    stock = CheckpointLoader._get_checkpoint_loader('')

    @wraps(stock)  # mmengine's log has its name
    def loader(path: str, map_location: Any = None) -> Any:
        if not _trusted():
            return load_from_local(path, map_location)
        check_intact(path)
        return stock(path, map_location)

    CheckpointLoader.register_scheme('', loader, force=True)


def protect_loading() -> None:
    """Set torch's own switch, which protects what is read from URLs, too.

    It holds for all of this process, so it is for a program to set and not
    for a library.
    """
    if not _trusted():
        os.environ[_FORCE] = '1'


def _trusted() -> bool:
    return os.environ.get(_TRUST, '0') not in ('', '0')


def load_from_local(path: str, map_location: Any = None) -> Any:
    """mmengine's loader of files, with the protection on.

    Args:
        path (str): File.
        map_location (str, optional): As of ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or asks for more than weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f'checkpoint not found: {path}, relative to {Path.cwd()}.'
        )
    check_intact(file)
    return _load(str(file), _read_file, map_location)


def _read_file(path: str, map_location: Any) -> Any:
    # Again: onedl-mmengine takes classes off torch's list when it has read
    # one of its own files.
    allow_mmengine_checkpoints()
    return torch.load(path, map_location=map_location, weights_only=True)


def _load(path: str, loader: Any, map_location: Any) -> Any:
    try:
        return loader(path, map_location)
    except Exception as error:  # the unpickler raises whatever it meets
        raise ValueError(
            f'{path} could not be read ({type(error).__name__}: {error}); '
            'expected a checkpoint that tools/train.py wrote, with weights, '
            'numbers and names alone. If you trust its source, write it anew: '
            'old = torch.load(FILE, weights_only=False); '
            "torch.save(dict(state_dict=old['state_dict']), NEW)."
        ) from error


@contextmanager
def _protected() -> Iterator[None]:
    """torch.load as with weights_only=True, whoever calls it."""
    before = {key: os.environ.pop(key, None) for key in (_FORCE, _TRUST)}
    os.environ[_FORCE] = '1'
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({k: v for k, v in before.items() if v is not None})


def _weights(loaded: Any) -> Any:
    is_dict = isinstance(loaded, dict)
    return loaded.get('state_dict', loaded) if is_dict else loaded
