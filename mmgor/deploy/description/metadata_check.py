"""Whether the description in an exported file says what it must."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .plain_json import check_plain

#: Largest height and width of an exported file.
MAX_SIDE = 4096
_MOST = 4096
# Of a batch: 3 GB in float32 with three channels.
_MOST_PIXELS = 2**28
_CONFIG_KEYS = {'default_scope', 'model', 'test_dataloader'}


@contextmanager
def blaming(path: str | Path) -> Iterator[None]:
    """Whatever a file's description leads to is a ValueError that names it.

    Raises:
        FileNotFoundError: If a file is not there.
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
            f'{path} can not be used: what it says about itself does not fit '
            f'({type(error).__name__}: {error}). Export it again.'
        ) from error


def check_metadata(metadata: Any) -> None:
    """Make sure that all is there that a runtime needs, and of sane sizes.

    Args:
        metadata (dict): As ``make_metadata`` makes it. What a runtime does
            not need may be missing: see :func:`check_description`.

    Raises:
        ValueError: If it does not; says which entry.
    """
    check_plain(metadata)
    _expect(metadata, 'format', _counts(_MOST), 'a number of a format')
    _expect(metadata, 'version', _is_text, 'a version')
    _check_input(_expect(metadata, 'input', _is_dict, 'a dict'))
    names = _leaves(_expect(metadata, 'outputs', _is_list, 'lists of names'))
    if not names or not all(map(_is_text, names)):
        raise ValueError(f'outputs is {names[:5]}; expected lists of names')
    if len(set(names)) < len(names):
        raise ValueError(f'outputs names one twice: {sorted(names)[:5]}')
    if _expect(metadata, 'nms', _is_bool, 'True or False', optional=True):
        _expect(metadata, 'outputs', _are_three, 'three names, for nms')
    _expect(metadata, 'classes', _are_texts, 'a list of names', True)
    _expect(metadata, 'weights_sha256', _is_text, 'a SHA-256', True)


def check_description(metadata: dict[str, Any]) -> None:
    """Make sure that a file tells its classes, its config and whether it has
    NMS, as one needs that is used without a config.

    Args:
        metadata (dict): See :func:`check_metadata`.

    Raises:
        ValueError: If it does not; says which entry.
    """
    classes = _expect(metadata, 'classes', _are_texts, 'a list of names')
    _expect(metadata, 'nms', _is_bool, 'True or False')
    config = _expect(metadata, 'config', _is_dict, 'a dict')
    if not set(config) <= _CONFIG_KEYS:
        raise ValueError(
            f'config has {sorted(set(config) - _CONFIG_KEYS)[:5]}; expected '
            f'{sorted(_CONFIG_KEYS)} alone'
        )
    model = _expect(config, 'model', _is_dict, 'a dict')
    head = _expect(model, 'bbox_head', _is_dict, 'a dict')
    if head.get('num_classes', len(classes)) != len(classes):
        raise ValueError(
            f'bbox_head.num_classes is {head["num_classes"]!r:.100}; expected '
            f'{len(classes)}, as many as classes'
        )
    for key in ('data_preprocessor', 'test_cfg'):
        _expect(model, key, _is_dict, 'a dict', optional=True)
    loader = _expect(config, 'test_dataloader', _is_dict, 'a dict')
    dataset = _expect(loader, 'dataset', _is_dict, 'a dict')
    _expect(dataset, 'pipeline', _are_dicts, 'a list of dicts')


def _check_input(spec: dict[str, Any]) -> None:
    _expect(spec, 'name', _is_text, 'a name')
    sides = [
        _expect(spec, key, _counts_or_none(MAX_SIDE), f'1 to {MAX_SIDE}')
        for key in ('height', 'width')
    ]
    batch = _expect(spec, 'batch', _counts_or_none(_MOST), f'1 to {_MOST}')
    _expect(spec, 'divisor', _counts(MAX_SIDE), f'1 to {MAX_SIDE}')
    if 'channels' in spec:  # not in files of former versions
        _expect(spec, 'channels', _counts(_MOST), f'1 to {_MOST}')
    if (batch or 1) * (sides[0] or 1) * (sides[1] or 1) > _MOST_PIXELS:
        raise ValueError(
            f'input is of {batch} x {sides[0]} x {sides[1]} pixels; expected '
            f'up to {_MOST_PIXELS}'
        )


def _expect(
    entries: dict[str, Any],
    key: str,
    fits: Callable[[Any], bool],
    expected: str,
    optional: bool = False,
) -> Any:
    """The value under a key; an optional one may be None or missing."""
    if not isinstance(entries, dict) or (key not in entries and not optional):
        raise ValueError(f'{key} is missing; expected {expected}')
    value = entries.get(key)
    if not (fits(value) or (optional and value is None)):
        raise ValueError(f'{key} is {value!r:.100}; expected {expected}')
    return value


def _leaves(nested: Any) -> list[Any]:
    if not isinstance(nested, list):
        return [nested]
    return [leaf for part in nested for leaf in _leaves(part)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


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


def _counts(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 1 <= value <= most


def _counts_or_none(most: int) -> Callable[[Any], bool]:
    counts = _counts(most)
    return lambda value: value is None or counts(value)
