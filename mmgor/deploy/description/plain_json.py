"""JSON of files that anyone may have written: data of a bounded size."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

#: Bytes; the metadata of a detector with a thousand layers is a tenth of a MB.
MOST_BYTES = 2**26
_MOST_DEEP = 64
_LARGEST = 2**63
# A terminal obeys control characters, and half a surrogate can't be printed.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff]')


def parse_json(text: str | bytes) -> Any:
    """What a text says, if it is plain.

    Args:
        text (str | bytes): JSON, in UTF-8.

    Raises:
        ValueError: If it is too long or no JSON, and see :func:`check_plain`.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f'expected up to {MOST_BYTES} bytes of JSON.')
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f'more than {_MOST_DEEP} lists in a row') from error
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Make sure that what JSON gave is easy to handle.

    Args:
        value (Any): Dicts, lists, strings, numbers, True, False and None.

    Raises:
        ValueError: If it is nested more than 64 deep, has NaN, an integer of
            more than 64 bits, or a string that can't be printed.
    """
    level = [value]
    for _ in range(_MOST_DEEP):
        for part in level:
            _check_leaf(part)
        level = [child for part in level for child in _children(part)]
        if not level:
            return
    raise ValueError(f'expected up to {_MOST_DEEP} lists and dicts in a row')


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value


def _check_leaf(value: Any) -> None:
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        raise ValueError(f'expected text without control signs, got {value!r}')
    if isinstance(value, float) and math.isnan(value):
        raise ValueError('expected numbers, got NaN')
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError('expected integers of 64 bits, got a larger one')
