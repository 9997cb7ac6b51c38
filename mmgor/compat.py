"""What mmgor needs of its environment."""

import importlib
import logging
import pickle
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

from packaging.version import Version

# No import of torch or MM* up here: a missing package must be reported by
# check_versions(), not by a bare traceback.

# Import name -> (names it is distributed under, from, below).
REQUIREMENTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    'torch': (('torch',), '2.6', '3'),
    'mmengine': (('mmengine', 'onedl-mmengine'), '0.10.4', '1'),
    'mmcv': (('mmcv', 'onedl-mmcv'), '2.0.0', '2.4'),
    'mmdet': (('mmdet', 'onedl-mmdetection'), '3.3.0', '4'),
}
# mmdet 3.3 asserts this on import, without a word about what to install.
MMCV_BELOW_FOR_MMDET_3_3 = '2.2'
INSTALL_HINT = (
    'Install one of\n'
    '  pip install torch==2.13.0 mmengine==0.10.7 mmdet==3.3.0 pycocotools\n'
    '  MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0\n'
    'or\n'
    '  pip install torch==2.13.0 onedl-mmengine==0.10.12 '
    'onedl-mmdetection==3.5.1 pycocotools\n'
    '  MMCV_WITH_OPS=1 pip install --no-build-isolation onedl-mmcv==2.3.6\n'
    "(`make env` in mmgor's repository does either)."
)
_EXPORTER = 'torch.onnx._internal.exporter._registration'
#: What a saved HistoryBuffer refers to besides its arrays.
HISTORY_METHODS = ('min', 'max', 'current', 'mean')
#: numpy's codes of the numbers that a checkpoint may hold.
NUMBER_CODES = (
    *('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8'),
    *('f2', 'f4', 'f8'),
)


def installed_version(names: tuple[str, ...]) -> str | None:
    """Version of the first of ``names`` that is installed, else None."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def missing_ops() -> str | None:
    """Why mmcv's compiled operators cannot be used; None if they can."""
    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        return str(error)
    return None


def check_versions(
    lookup: Callable[[tuple[str, ...]], str | None] = installed_version,
    ops_error: Callable[[], str | None] = missing_ops,
) -> None:
    """Compare what is installed with what mmgor was written for.

    Args:
        lookup (Callable): Distribution names -> version or None.
        ops_error (Callable): What is wrong with mmcv's operators, or None.

    Raises:
        ImportError: Naming the package, the versions and the commands.
    """
    found: dict[str, Version] = {}
    for package, (names, lowest, below) in REQUIREMENTS.items():
        version = lookup(names)
        if version is None:
            raise ImportError(
                f'mmgor needs {package}>={lowest},<{below}, which is not '
                f'installed. {INSTALL_HINT}'
            )
        found[package] = Version(version)
        _check_range(package, found[package], lowest, below)
    if found['mmdet'].release[:2] == (3, 3):
        _check_range(
            'mmcv',
            found['mmcv'],
            REQUIREMENTS['mmcv'][1],
            MMCV_BELOW_FOR_MMDET_3_3,
            f' next to mmdet {found["mmdet"]}',
        )
    error = ops_error()
    if error is not None:
        raise ImportError(
            'mmgor needs mmcv with compiled operators for the installed '
            f'torch {found["torch"]}; importing mmcv.ops of mmcv '
            f'{found["mmcv"]} failed: {error}. {INSTALL_HINT}'
        )


def _check_range(
    package: str, found: Version, lowest: str, below: str, why: str = ''
) -> None:
    """Releases are compared: 2.13.0+cpu and 3.3.0rc1 count as 2.13, 3.3."""
    if not Version(lowest).release <= found.release < Version(below).release:
        raise ImportError(
            f'mmgor needs {package}>={lowest},<{below}{why}, found {found}. '
            f'{INSTALL_HINT}'
        )


def silence_known_noise() -> None:
    """Leave out two messages that say nothing to a user, and no others.

    mmengine imports ``pkg_resources`` anew at every look for a package, which
    warns each time; torch's exporter tells each of torchvision's operators
    that it does without.
    """
    warnings.filterwarnings(
        'ignore', 'pkg_resources is deprecated', UserWarning
    )
    logging.getLogger(_EXPORTER).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith('torchvision is not installed')


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    They hold the log's history buffers: one mmengine class around numpy
    arrays of numbers. torch >= 2.6 refuses them by default; what is harmless
    is allowed here, the protection stays on. numpy's own classes are not:
    ``ndarray`` and ``dtype`` make an array of Python objects from a file's
    bytes, which are then followed as addresses. Stand-ins give numbers alone.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    numbers = {type(np.dtype(code)) for code in NUMBER_CODES}
    allowed: list[Any] = [
        HistoryBuffer,
        *sorted(numbers, key=str),
        (history_method, 'builtins.getattr'),
        (array_name, 'numpy.ndarray'),
        (number_type, 'numpy.dtype'),
        # A file fills arrays but cannot name their class: a name in a file
        # ends at its line.
        (np.ndarray, 'numpy\nndarray'),
    ]
    # numpy 2 moved its core; a file names the place of its writer's numpy.
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    for place in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed.append((empty_array, f'{place}._reconstruct'))
        allowed.append((multiarray.scalar, f'{place}.scalar'))
    torch.serialization.add_safe_globals(allowed)


def array_name(*_: Any) -> Any:
    """The name of ``numpy.ndarray`` in a checkpoint, which is never called.

    Raises:
        pickle.UnpicklingError: Always.
    """
    raise pickle.UnpicklingError(
        'a checkpoint asked for an array by numpy.ndarray(...); expected only '
        "the arrays of mmengine's history buffers."
    )


def empty_array(kind: Any, *_: Any) -> Any:
    """An array that a checkpoint goes on to fill with numbers.

    Raises:
        pickle.UnpicklingError: If a file asks for an array of another kind.
    """
    import numpy as np

    if kind is not array_name:
        raise pickle.UnpicklingError(
            f'a checkpoint asked for an array of {kind!r}; expected '
            'numpy.ndarray.'
        )
    return np.empty(0)


def number_type(code: Any, *_: Any) -> Any:
    """``numpy.dtype`` of numbers. It is numpy's own, which no file changes.

    Raises:
        pickle.UnpicklingError: If a file asks for another type.
    """
    import numpy as np

    if code not in NUMBER_CODES:
        raise pickle.UnpicklingError(
            f'a checkpoint asked for numpy.dtype({code!r}); expected one of '
            f'{NUMBER_CODES}.'
        )
    return np.dtype(code)


def history_method(owner: Any, name: str) -> Callable:
    """``getattr`` for a HistoryBuffer's statistics and nothing else.

    Raises:
        pickle.UnpicklingError: If a file asks for anything else.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in HISTORY_METHODS:
        raise pickle.UnpicklingError(
            f'a checkpoint asked for the attribute {name!r} of {owner!r}; '
            "expected only HistoryBuffer's statistics "
            f'{HISTORY_METHODS}. Load it only if you trust its source: '
            'torch.load(file, weights_only=False).'
        )
    return getattr(HistoryBuffer, name)
