"""Parses JSON that anyone may have written; refuses odd or huge data."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

#: Most bytes of JSON. The metadata of a thousand layers takes 0.1 MB.
MOST_BYTES = 2**26
_MOST_DEEP = 64
_TOO_DEEP = f'expected lists and dicts nested up to {_MOST_DEEP} deep'
_LARGEST = 2**63
# A terminal obeys control characters; a lone surrogate can't be printed.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff]')


def parse_json(text: str | bytes) -> Any:
    """Parse JSON and check its values.

    Args:
        text (str | bytes): JSON, in UTF-8.

    Returns:
        Any: Dicts, lists, strings, numbers, True, False and None.

    Raises:
        ValueError: If the text is too long or not JSON, or has a value that
            :func:`check_plain` refuses.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(
            f'expected up to {MOST_BYTES} bytes of JSON, got {len(text)}.'
        )
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Make sure that values of JSON are safe to handle and to print.

    Args:
        value (Any): Dicts, lists, strings, numbers, True, False and None.

    Raises:
        ValueError: If it is nested more than 64 deep, or has NaN, an integer
            of more than 64 bits, or a string that can't be printed.
    """
    level = [value]
    for _ in range(_MOST_DEEP):
        for entry in level:
            _check_leaf(entry)
        level = [child for entry in level for child in _children(entry)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value


def _check_leaf(value: Any) -> None:
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        raise ValueError(
            f'expected text without control characters, got {value!r}'
        )
    if isinstance(value, float) and math.isnan(value):
        raise ValueError('expected numbers, got NaN')
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError('expected integers of 64 bits, got a larger one')
