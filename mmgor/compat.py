"""Checks and settings of the environment, made when mmgor is imported.

The versions of torch, mmengine, mmcv and mmdet are checked, messages of other
packages to their own developers are filtered out, and torch is told which
objects in mmengine's checkpoints are safe to load.
"""

import importlib
import logging
import pickle
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

from packaging.version import Version

# torch and MM* are not imported at the top: check_versions() must report a
# missing package, not a bare traceback.

# Import name -> (distribution names, lowest version, first one too new).
REQUIREMENTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    'torch': (('torch',), '2.6', '3'),
    'mmengine': (('mmengine', 'onedl-mmengine'), '0.10.4', '1'),
    'mmcv': (('mmcv', 'onedl-mmcv'), '2.0.0', '2.4'),
    'mmdet': (('mmdet', 'onedl-mmdetection'), '3.3.0', '4'),
}
# mmdet 3.3 asserts this when it is imported, and its message does not say what
# to install.
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
#: Warnings that nobody who trains a detector can act on: how they start, their
#: category, and the module that warns (regular expressions).
NOISE: tuple[tuple[str, type[Warning], str], ...] = (
    # mmengine imports pkg_resources whenever it looks for a package.
    ('pkg_resources is deprecated', UserWarning, ''),
    # Written for an older torch.
    (r'`torch\.cuda\.amp\.autocast', FutureWarning, r'mm(det|cv)\.'),
    (
        'torch.meshgrid: in an upcoming release',
        UserWarning,
        'torch.functional',
    ),
    ('To copy construct from a tensor', UserWarning, r'mmdet\.models\.losses'),
    # Written for an older mmdet or mmcv.
    (
        'DeprecationWarning: `num_anchors` is deprecated',
        UserWarning,
        r'mmdet\.models\.dense_heads\.',
    ),
    ('In MMCV v1.4.4, we modified', UserWarning, r'mmcv\.cnn\.bricks\.'),
    # torch's exporter copies its own trees.
    (r'`isinstance\(treespec, LeafSpec\)`', FutureWarning, 'copyreg'),
    # A box that reaches beyond the image is drawn up to its edge.
    (
        'Warning: The (bbox|polygon|text) is out of bounds',
        UserWarning,
        r'mmengine\.visualization\.',
    ),
)
#: How log messages of this kind start.
NOISY_LOG = (
    # torch's ONNX exporter names every operator that it skips.
    'torchvision is not installed',
    # mmengine's CheckpointHook calls what mmengine has deprecated.
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias of "LocalBackend"',
)
#: Methods that a saved HistoryBuffer names besides its arrays.
HISTORY_METHODS = ('min', 'max', 'current', 'mean')
#: numpy's type codes of the numbers that a checkpoint may hold.
NUMBER_CODES = (
    *('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8'),
    *('f2', 'f4', 'f8'),
)


def installed_version(names: tuple[str, ...]) -> str | None:
    """The version of the first installed name, or None if there is none."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def missing_ops() -> str | None:
    """Why mmcv's compiled operators can't be imported, or None if they can."""
    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        return str(error)
    return None


def check_versions(
    lookup: Callable[[tuple[str, ...]], str | None] = installed_version,
    ops_error: Callable[[], str | None] = missing_ops,
) -> None:
    """Check that mmgor supports the installed packages.

    Args:
        lookup (Callable): Maps distribution names to a version or None.
        ops_error (Callable): Returns what is wrong with mmcv's operators, or
            None.

    Raises:
        ImportError: If a package is missing or has an unsupported version, or
            if mmcv lacks its operators. The message names all that is wrong,
            the versions and the commands that install them.
    """
    faults = []
    found: dict[str, Version] = {}
    for package, (names, lowest, below) in REQUIREMENTS.items():
        version = lookup(names)
        if version is None:
            faults.append(
                f'mmgor needs {package}>={lowest},<{below}, which is not '
                'installed.'
            )
            continue
        found[package] = Version(version)
        faults += _misfits(package, found[package], lowest, below)
    mmdet = found.get('mmdet')
    if mmdet and mmdet.release[:2] == (3, 3) and 'mmcv' in found:
        faults += _misfits(
            'mmcv',
            found['mmcv'],
            REQUIREMENTS['mmcv'][1],
            MMCV_BELOW_FOR_MMDET_3_3,
            f' next to mmdet {mmdet}',
        )
    # Without these, importing mmcv.ops only repeats what was said.
    error = None if faults else ops_error()
    if error is not None:
        faults.append(
            'mmgor needs mmcv with compiled operators for the installed '
            f'torch {found["torch"]}; importing mmcv.ops of mmcv '
            f'{found["mmcv"]} failed: {error}.'
        )
    if faults:
        raise ImportError('\n'.join([*faults, INSTALL_HINT]))


def _misfits(
    package: str, found: Version, lowest: str, below: str, why: str = ''
) -> list[str]:
    """What is wrong with a version. Release numbers are compared: 2.13.0+cpu
    counts as 2.13, 3.3.0rc1 as 3.3."""
    if Version(lowest).release <= found.release < Version(below).release:
        return []
    return [f'mmgor needs {package}>={lowest},<{below}{why}, found {found}.']


def silence_known_noise() -> None:
    """Filter out the warnings of :data:`NOISE` and torch's of
    :data:`NOISY_LOG`."""
    for message, category, module in NOISE:
        warnings.filterwarnings('ignore', message, category, module)
    silence_log(logging.getLogger(_EXPORTER))


def silence_log(logger: logging.Logger) -> None:
    """Filter the messages of :data:`NOISY_LOG` out of a log.

    Args:
        logger (logging.Logger): torch's, or that of a Runner.
    """
    logger.addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(NOISY_LOG)


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    They hold the history buffers of the log: objects of one mmengine class
    with numpy arrays of numbers. By default, torch >= 2.6 refuses them. Only
    what is harmless is allowed here, so torch's protection stays on. numpy's
    own ``ndarray`` and ``dtype`` are not harmless: a file could use them to
    build an array of Python objects from raw bytes, which numpy would follow
    as addresses. The functions below stand in for them and only make arrays
    of numbers.
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
        # Lets a file fill arrays without being able to name their class: a
        # name in a file ends at the line break.
        (np.ndarray, 'numpy\nndarray'),
    ]
    # numpy 2 moved its core. A file names the location in the numpy that
    # wrote it.
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed.append((empty_array, f'{module}._reconstruct'))
        allowed.append((multiarray.scalar, f'{module}.scalar'))
    torch.serialization.add_safe_globals(allowed)


def array_name(*_: Any) -> Any:
    """Stands for ``numpy.ndarray`` in a checkpoint and is never called.

    Raises:
        pickle.UnpicklingError: Always.
    """
    raise pickle.UnpicklingError(
        'a checkpoint asked for an array by numpy.ndarray(...); expected only '
        "the arrays of mmengine's history buffers."
    )


def empty_array(kind: Any, *_: Any) -> Any:
    """An empty array, which the checkpoint then fills with numbers.

    Raises:
        pickle.UnpicklingError: If the file asks for another class of array.
    """
    import numpy as np

    if kind is not array_name:
        raise pickle.UnpicklingError(
            f'a checkpoint asked for an array of {kind!r}; expected '
            'numpy.ndarray.'
        )
    return np.empty(0)


def number_type(code: Any, *_: Any) -> Any:
    """numpy's dtype for a code of :data:`NUMBER_CODES`.

    numpy keeps one dtype per code, and a file can't change it.

    Raises:
        pickle.UnpicklingError: If the file asks for another type.
    """
    import numpy as np

    if code not in NUMBER_CODES:
        raise pickle.UnpicklingError(
            f'a checkpoint asked for numpy.dtype({code!r}); expected one of '
            f'{NUMBER_CODES}.'
        )
    return np.dtype(code)


def history_method(owner: Any, name: str) -> Callable:
    """``getattr`` that only gives the statistics of a HistoryBuffer.

    Raises:
        pickle.UnpicklingError: If the file asks for anything else.
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
