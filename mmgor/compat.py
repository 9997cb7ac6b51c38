"""What mmgor needs of its environment."""

import importlib
import pickle
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
#: What a saved HistoryBuffer refers to besides its arrays.
HISTORY_METHODS = ('min', 'max', 'current', 'mean')


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


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    They hold the log's history buffers: one mmengine class around numpy
    arrays. torch >= 2.6 refuses them by default; the few harmless classes are
    allowed here, the protection stays on. The buffers name their own methods
    through ``getattr``, for which a stand-in that gives nothing else is
    allowed.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    allowed: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        type(np.dtype('float64')),
        type(np.dtype('int64')),
        (history_method, 'builtins.getattr'),
    ]
    # numpy 2 moved its core; a file names the place of its writer's numpy.
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    for function in (multiarray._reconstruct, multiarray.scalar):
        for place in ('numpy._core', 'numpy.core'):
            name = f'{place}.multiarray.{function.__name__}'
            allowed.append((function, name))
    torch.serialization.add_safe_globals(allowed)


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
