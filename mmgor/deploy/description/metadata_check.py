"""Checks an exported file's metadata: every entry is there, of the right type.

Anyone may have written the file. What its config may build is checked in
``allowed.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmgor.quantization.policy import LAYOUTS
from mmgor.targets import TARGETS

from .plain_json import check_plain

#: Largest height and width of an exported file, in pixels.
MAX_SIDE = 4096
_MOST = 4096
# Largest number of pixels in a batch: 3 GB in float32 with three channels.
_MOST_PIXELS = 2**28
_CONFIG_KEYS = {'default_scope', 'model', 'test_dataloader'}


@contextmanager
def errors_naming(path: str | Path) -> Iterator[None]:
    """Turn every error that a file's metadata causes into a ValueError with
    the file's name.

    Args:
        path (str | Path): The exported file.

    Raises:
        FileNotFoundError: If a file does not exist.
        ImportError: If a backend is not installed.
        ValueError: If anything else goes wrong.
    """
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f'{path} can not be used: its metadata does not fit '
            f'({type(error).__name__}: {error}). Export it again.'
        ) from error


def check_metadata(metadata: Any) -> None:
    """Make sure that metadata has every entry, of the right type and a sane
    size.

    Args:
        metadata (dict): As :func:`~.metadata.make_metadata` makes it, after
            JSON.

    Raises:
        ValueError: If an entry is missing or wrong; the message names it.
    """
    check_plain(metadata)
    _expect(metadata, 'format', _is_count(_MOST), 'a number')
    _expect(metadata, 'version', _is_text, 'a version')
    _expect(metadata, 'model', _is_text, 'the name of a detector')
    _expect(metadata, 'preprocessing', _is_dict, 'a dict')
    _expect(metadata, 'weights_sha256', _is_text, 'a SHA-256')
    _expect(metadata, 'quantization', _are_dicts, 'a list of dicts')
    _expect(metadata, 'tensors', _is_layout, f'one of {LAYOUTS}')
    _expect(metadata, 'target', _is_target, f'None or one of {[*TARGETS]}')
    classes = _expect(metadata, 'classes', _are_texts, 'a list of names')
    _check_input(_expect(metadata, 'input', _is_dict, 'a dict'))
    rest = _expect(metadata, 'rest', _are_texts, 'a list of names')
    _check_outputs(metadata)
    if rest and metadata['nms']:
        raise ValueError(f'rest is {rest!r:.100} with nms; expected []')
    config = _expect(metadata, 'config', _is_dict, 'a dict')
    _check_config(config, classes, whole=not rest)


def _check_input(spec: dict[str, Any]) -> None:
    _expect(spec, 'name', _is_text, 'a name')
    height, width = (
        _expect(spec, key, _is_count_or_none(MAX_SIDE), f'1 to {MAX_SIDE}')
        for key in ('height', 'width')
    )
    batch = _expect(spec, 'batch', _is_count_or_none(_MOST), f'1 to {_MOST}')
    _expect(spec, 'divisor', _is_count(MAX_SIDE), f'1 to {MAX_SIDE}')
    _expect(spec, 'channels', _is_count(_MOST), f'1 to {_MOST}')
    if (batch or 1) * (height or 1) * (width or 1) > _MOST_PIXELS:
        raise ValueError(
            f'input has {batch} x {height} x {width} pixels; expected up to '
            f'{_MOST_PIXELS}'
        )


def _check_outputs(metadata: dict[str, Any]) -> None:
    names = _leaves(_expect(metadata, 'outputs', _is_list, 'lists of names'))
    if not names or not all(map(_is_text, names)):
        raise ValueError(f'outputs is {names[:5]}; expected lists of names')
    if len(set(names)) < len(names):
        raise ValueError(
            f'outputs has a name twice: {sorted(names)[:5]}; expected '
            'different names'
        )
    if _expect(metadata, 'nms', _is_bool, 'True or False'):
        _expect(metadata, 'outputs', _are_three, 'three names with nms')


def _check_config(
    config: dict[str, Any], classes: list[str], whole: bool
) -> None:
    if not set(config) <= _CONFIG_KEYS:
        raise ValueError(
            f'config has {sorted(set(config) - _CONFIG_KEYS)[:5]}; expected '
            f'only {sorted(_CONFIG_KEYS)}'
        )
    model = _expect(config, 'model', _is_dict, 'a dict')
    if whole:
        _check_head(_expect(model, 'bbox_head', _is_dict, 'a dict'), classes)
    for key in ('data_preprocessor', 'test_cfg'):
        if model.get(key) is not None:
            _expect(model, key, _is_dict, 'a dict')
    loader = _expect(config, 'test_dataloader', _is_dict, 'a dict')
    dataset = _expect(loader, 'dataset', _is_dict, 'a dict')
    _expect(dataset, 'pipeline', _are_dicts, 'a list of dicts')


def _check_head(head: dict[str, Any], classes: list[str]) -> None:
    if head.get('num_classes', len(classes)) != len(classes):
        raise ValueError(
            f'bbox_head.num_classes is {head["num_classes"]!r:.100}; expected '
            f'{len(classes)}, the number of classes'
        )


def _expect(
    entries: Any, key: str, fits: Callable[[Any], bool], expected: str
) -> Any:
    """The value of a key that has to be there."""
    if not isinstance(entries, dict) or key not in entries:
        raise ValueError(f'{key} is missing; expected {expected}')
    value = entries[key]
    if not fits(value):
        raise ValueError(f'{key} is {value!r:.100}; expected {expected}')
    return value


def _leaves(nested: Any) -> list[Any]:
    if not isinstance(nested, list):
        return [nested]
    return [leaf for item in nested for leaf in _leaves(item)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_layout(value: Any) -> bool:
    return value in LAYOUTS


def _is_target(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in TARGETS)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_three(value: Any) -> bool:
    return _are_texts(value) and len(value) == 3


def _are_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_dict, value))


def _is_count(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 1 <= value <= most


def _is_count_or_none(most: int) -> Callable[[Any], bool]:
    is_count = _is_count(most)
    return lambda value: value is None or is_count(value)
