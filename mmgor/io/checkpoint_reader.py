"""Read checkpoints without running code from them.

A checkpoint is a pickle, which can ask for any function to be called. Here
only tensors, numbers, names and mmengine's log are read.
"""

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
# State of a file on the disk -> its content, for the next read.
_read_ahead: dict[tuple, Any] = {}


def read_checkpoint(path: str | Path) -> Any:
    """Content of a checkpoint, on the CPU.

    The stack's own loaders are less strict: onedl-mmengine unpickles a file
    that it could not read safely, and torch.hub, which reads URLs, does not
    try to read it safely first.

    Args:
        path (str | Path): File, URL, or another address that mmengine knows,
            such as 'open-mmlab://...'.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it can't be read, asks for code to be run, or has
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
    """Weights and meta of a checkpoint; meta is {} if it has none.

    Args:
        path (str | Path): See :func:`read_checkpoint`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: See :func:`read_checkpoint` and :func:`named_weights`.
    """
    loaded = read_checkpoint(path)
    weights = named_weights(path, loaded)
    return weights, loaded.get('meta') or {}


def named_weights(path: str | Path, loaded: Any) -> dict[str, Any]:
    """The weights in the content of a checkpoint, by name.

    The prefix ``module.`` of a model that was saved in its DDP wrapper is
    left out.

    Args:
        path (str | Path): The file, for error messages.
        loaded (Any): Result of :func:`read_checkpoint`: the weights, or a
            dict with them as its ``state_dict``.

    Raises:
        ValueError: If there are no weights, or keys are not names.
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
    return {k.removeprefix('module.'): v for k, v in weights.items()}


def guard_local_files() -> None:
    """Let mmengine read all local files with :func:`load_from_local`: those
    of a Runner, of an ``init_cfg`` and of ``init_detector``.

    If you trust all files of a run, set torch's own switch,
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``. The stack's loader reads them
    then, after a check for damage.
    """
    stock = CheckpointLoader._get_checkpoint_loader('')

    @wraps(stock)  # mmengine's log has its name
    def loader(path: str, map_location: Any = None) -> Any:
        kept = _read_ahead.pop(_state(path), None)
        _read_ahead.clear()  # nobody will ask for another one
        if kept is not None and isinstance(map_location, str):
            return _moved(kept, map_location)
        if not _trusted():
            return load_from_local(path, map_location)
        check_intact(path)
        return stock(path, map_location)

    CheckpointLoader.register_scheme('', loader, force=True)


def read_ahead(path: str) -> Any:
    """Content of a local file that mmengine's loader will be asked for, too.

    It is kept until then, so that the file is read once. If the file changes
    before, it is read again. One file is kept at a time.

    Args:
        path (str): The file.

    Returns:
        Any: The content, on the CPU. It must not be changed.

    Raises:
        FileNotFoundError: See :func:`load_from_local`.
        ValueError: See :func:`load_from_local`.
    """
    state = _state(path)
    if state not in _read_ahead:
        content = CheckpointLoader.load_checkpoint(path, 'cpu', 'silent')
        _read_ahead.clear()
        _read_ahead[state] = content
    return _read_ahead[state]


def _state(path: str) -> tuple:
    """What changes with a file; () if there is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        return ()
    stat = file.stat()
    return str(file.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns


def _moved(value: Any, device: str) -> Any:
    """The content of a checkpoint on a device, as ``map_location`` gives it.
    Dicts and lists stay the same objects, which may have attributes."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if type(value) is tuple:
        return tuple(_moved(item, device) for item in value)
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in [*pairs]:
            value[key] = _moved(item, device)
    return value


def protect_loading() -> None:
    """Set torch's own switch, so that URLs are read without running code,
    too.

    It holds for the whole process. So programs call this, libraries do not.
    """
    if not _trusted():
        os.environ[_FORCE] = '1'


def _trusted() -> bool:
    return os.environ.get(_TRUST, '0') not in ('', '0')


def load_from_local(path: str, map_location: Any = None) -> Any:
    """Content of a checkpoint in a local file.

    Args:
        path (str): The file.
        map_location (str, optional): See ``torch.load``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged or asks for code to be run.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f'checkpoint not found: {path}, relative to {Path.cwd()}.'
        )
    check_intact(file)
    return _load(str(file), _read_file, map_location)


def _read_file(path: str, map_location: Any) -> Any:
    # Repeated for every file: onedl-mmengine removes classes from torch's
    # list after it has read one of its own.
    allow_mmengine_checkpoints()
    return torch.load(path, map_location=map_location, weights_only=True)


def _load(path: str, loader: Any, map_location: Any) -> Any:
    try:
        return loader(path, map_location)
    except Exception as error:  # the unpickler raises whatever it meets
        raise ValueError(
            f'{path} could not be read ({type(error).__name__}: {error}); '
            'expected a checkpoint that tools/train.py wrote, with weights, '
            'numbers and names only. If you trust its source, write it again: '
            'old = torch.load(FILE, weights_only=False); '
            "torch.save(dict(state_dict=old['state_dict']), NEW)."
        ) from error


@contextmanager
def _protected() -> Iterator[None]:
    """Make every ``torch.load`` behave as with ``weights_only=True``."""
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
