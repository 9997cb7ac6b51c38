"""Writes values as the Python source of a config."""

from collections.abc import Sequence
from typing import Any

WIDTH = 79
_STEP = 4


class Code(str):
    """Source that is written as it is, such as the name of a variable. Its
    further lines are indented as its first one is."""

    __slots__ = ()


def render(value: Any, indent: int = 0, used: int = 0) -> str:
    """A value as source, on one line if it fits.

    Args:
        value (Any): Numbers, strings, None, dicts, lists and tuples, nested,
            and :class:`Code`. Other values are written as ``repr`` does.
        indent (int): Columns that the lines after the first are indented by.
        used (int): Columns of the first line that are taken already.

    Example:
        >>> render(dict(type='FPN', quant=Code('quant')))
        "dict(type='FPN', quant=quant)"
    """
    line = _inline(value)
    if not _nested(value):
        return line.replace('\n', '\n' + ' ' * indent)
    if used + len(line) < WIDTH and '\n' not in line:
        return line
    inner = indent + _STEP
    pad = ' ' * inner
    opening, closing = _brackets(value)
    lines = []
    for head, item in _items(value):
        text = render(item, inner, inner + len(head))
        lines.append(f'{pad}{head}{text},\n')
    return f'{opening}\n{"".join(lines)}{" " * indent}{closing}'


def assignment(name: str, value: Any) -> str:
    """A line, or several, that give a value a name."""
    return f'{name} = {render(value, 0, len(name) + 3)}\n'


def _nested(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple)) and len(value) > 0


def _is_call(value: dict) -> bool:
    """Whether ``dict(key=value)`` can hold all keys."""
    return all(isinstance(k, str) and k.isidentifier() for k in value)


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, dict):
        return ('dict(', ')') if _is_call(value) else ('{', '}')
    return ('[', ']') if isinstance(value, list) else ('(', ')')


def _items(value: Any) -> Sequence[tuple[str, Any]]:
    """What stands before each entry, and the entry."""
    if not isinstance(value, dict):
        return [('', item) for item in value]
    if _is_call(value):
        return [(f'{key}=', item) for key, item in value.items()]
    return [(f'{key!r}: ', item) for key, item in value.items()]


def _inline(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if not isinstance(value, (dict, list, tuple)):
        return repr(value)
    opening, closing = _brackets(value)
    inside = ', '.join(head + _inline(item) for head, item in _items(value))
    if isinstance(value, tuple) and len(value) == 1:
        inside += ','
    return opening + inside + closing
