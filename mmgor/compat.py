"""What mmgor needs of its environment."""

import importlib
from collections.abc import Callable
from importlib import metadata

import numpy as np
import torch
from packaging.version import Version

# Import name -> (names it is distributed under, from, below).
REQUIREMENTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    'torch': (('torch',), '2.6', '3'),
    'mmengine': (('mmengine', 'onedl-mmengine'), '0.10.4', '1'),
    'mmcv': (('mmcv', 'onedl-mmcv'), '2.0.0', '2.4'),
    'mmdet': (('mmdet', 'onedl-mmdetection'), '3.3.0', '4'),
}
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


def installed_version(names: tuple[str, ...]) -> str | None:
    """Version of the first of ``names`` that is installed, else None."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def has_compiled_ops() -> bool:
    """Whether mmcv came with its compiled operators."""
    try:
        importlib.import_module('mmcv.ops')
    except ImportError:
        return False
    return True


def check_versions(
    lookup: Callable[[tuple[str, ...]], str | None] = installed_version,
    compiled_ops: Callable[[], bool] = has_compiled_ops,
) -> None:
    """Compare what is installed with what mmgor was written for.

    Args:
        lookup (Callable): Distribution names -> version or None.
        compiled_ops (Callable): Whether mmcv has its operators.

    Raises:
        ImportError: Naming the package, the versions and the commands.
    """
    for package, (names, lowest, below) in REQUIREMENTS.items():
        found = lookup(names)
        expected = f'{package}>={lowest},<{below}'
        if found is None:
            raise ImportError(
                f'mmgor needs {expected}, which is not '
                f'installed. {INSTALL_HINT}'
            )
        release = Version(found).release
        if not Version(lowest).release <= release < Version(below).release:
            raise ImportError(
                f'mmgor needs {expected}, found {found}. {INSTALL_HINT}'
            )
    if not compiled_ops():
        raise ImportError(
            'mmgor needs mmcv with compiled operators (mmcv.ops), found mmcv '
            f'without. {INSTALL_HINT}'
        )


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    They hold the log's history buffers: one mmengine class around numpy
    arrays. torch >= 2.6 refuses them by default; the few harmless classes are
    allowed here, the protection stays on.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    # numpy moved its core; pickles name either place.
    core = getattr(np, '_core', None) or np.core
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            core.multiarray._reconstruct,
            core.multiarray.scalar,
            type(np.dtype('float64')),
            type(np.dtype('int64')),
            getattr,
        ]
    )
