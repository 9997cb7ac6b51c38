"""A config as JSON and back.

JSON has no tuples, but mmcv treats them differently from lists (a scale is a
tuple). So a tuple is written as ``{'__tuple__': [...]}``.
"""

from collections.abc import Collection
from typing import Any

_TUPLE = '__tuple__'


def to_json(value: Any) -> Any:
    """A config's value as JSON can hold it.

    Args:
        value (Any): Names, numbers, None, and nested dicts, lists and tuples
            of them.

    Raises:
        ValueError: If it has anything else, such as a function.
    """
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [to_json(item) for item in value]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f'the config has {value!r}, which an exported file can not hold; '
        'expected names, numbers, lists and dicts. Write names of registered '
        "functions, such as type='nms', instead of the functions."
    )


def from_json(value: Any) -> Any:
    """The value that :func:`to_json` was given."""
    if isinstance(value, dict):
        if set(value) == {_TUPLE} and isinstance(value[_TUPLE], list):
            return tuple(from_json(item) for item in value[_TUPLE])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(v) for v in value] if isinstance(value, list) else value


def without(value: Any, keys: Collection[str]) -> Any:
    """Nested dicts, lists and tuples without some keys, at any depth."""
    if isinstance(value, dict):
        return {k: without(v, keys) for k, v in value.items() if k not in keys}
    if isinstance(value, (list, tuple)):
        return type(value)(without(item, keys) for item in value)
    return value
