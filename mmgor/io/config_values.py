"""Check the values of a config, with errors that say what to write.

Constructors pass their arguments through these functions. Each returns the
value as a plain Python value, also from a scalar of NumPy or torch, and raises
ValueError for a value of another kind: True is not a number, '4' is not an
integer, and NaN and infinity are in no interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

# What error messages call an interval; others are written out.
_PHRASES = {
    '(-inf, inf)': 'finite',
    '(0, inf)': 'positive',
    '[0, inf)': 'at least 0',
}


def number(
    name: str, value: Any, interval: str = '(-inf, inf)', hint: str = ''
) -> float:
    """A finite number in an interval.

    Args:
        name (str): Name of the setting in a config.
        value (Any): Its value.
        interval (str): A square bracket includes the bound, a round one
            excludes it, e.g. '[0, 1)'.
        hint (str): Advice to add to the error message.

    Raises:
        ValueError: If the value is not a number in the interval.

    Example:
        >>> number('momentum', 1, '(0, 1]')
        1.0
    """
    found = _as_float(value)
    if found is None or not _inside(found, interval):
        kind = 'a number and ' if found is None else ''
        what = _PHRASES.get(interval, f'in {interval}')
        raise _refusal(name, kind + what, value, hint)
    return found


def integer(
    name: str,
    value: Any,
    low: int | None = None,
    high: int | None = None,
    hint: str = '',
) -> int:
    """An integer from ``low`` to ``high``, both included.

    Args:
        name (str): Name of the setting in a config.
        value (Any): Its value.
        low (int, optional): Least value; None: no bound.
        high (int, optional): Largest value; None: no bound.
        hint (str): Advice to add to the error message.

    Raises:
        ValueError: If the value is not such an integer.
    """
    found = _plain(value)
    sound = isinstance(found, Integral) and not isinstance(found, bool)
    if not sound or not (
        (low is None or low <= found) and (high is None or found <= high)
    ):
        what = 'an integer' + ('' if low is None else f' of at least {low}')
        what = what if high is None else f'an integer from {low} to {high}'
        raise _refusal(name, what, value, hint)
    return int(found)


def integers(
    name: str, value: Any, low: int, example: str, count: int | None = None
) -> list[int]:
    """A list or tuple of integers that is not empty.

    Args:
        name (str): Name of the setting in a config.
        value (Any): Its value.
        low (int): Least value of each integer.
        example (str): A valid list for the error message.
        count (int, optional): Length of the list; None: any.

    Raises:
        ValueError: If the value is not such a list.
    """
    entries = value if isinstance(value, (list, tuple)) else []
    if not entries or count not in (None, len(entries)):
        raise _refusal(name, f'a list such as {example}', value)
    return [
        integer(f'{name}[{i}]', entry, low) for i, entry in enumerate(entries)
    ]


def boolean(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        ValueError: If the value is neither.
    """
    found = _plain(value)
    if not isinstance(found, bool):
        raise _refusal(name, 'True or False', value)
    return found


def text(name: str, value: Any, example: str) -> str:
    """A string that is not empty.

    Raises:
        ValueError: If the value is not such a string.
    """
    if not isinstance(value, str) or not value:
        raise _refusal(name, f'a string such as {example!r}', value)
    return value


def choice(
    name: str, value: Any, options: Iterable[str], hint: str = ''
) -> str:
    """One of several words.

    Raises:
        ValueError: If the value is not one of them.
    """
    known = list(options)
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f'unknown {name} {value!r}; expected one of {known}'
            f'{nearest([value], known)}.{hint and f" {hint}"}'
        )
    return value


def mapping(name: str, value: Any, example: str) -> dict:
    """A dict.

    Raises:
        ValueError: If the value is not a dict.
    """
    if not isinstance(value, Mapping):
        raise _refusal(name, 'a dict', value, f'expected e.g. {example}')
    return dict(value)


def known_keys(name: str, given: Mapping, known: Iterable[str]) -> None:
    """Make sure that a dict has only known keys.

    Raises:
        ValueError: If it has others. The message suggests known keys with a
            similar spelling.
    """
    options = sorted(known)
    unknown = [key for key in given if key not in options]
    if unknown:
        raise ValueError(
            f'unknown key(s) {unknown} in {name}; expected some of '
            f'{options}{nearest(unknown, options)}.'
        )


def nearest(given: Iterable[Any], known: Sequence[str]) -> str:
    """' (did you mean ...?)' with the words spelt most alike, or ''."""
    words = [word for word in given if isinstance(word, str)]
    close = [get_close_matches(word, known, n=1) for word in words]
    found = [name for one in close for name in one]
    names = ', '.join(map(repr, found))
    return f' (did you mean {names}?)' if found else ''


def _plain(value: Any) -> Any:
    """The value of a 0-dimensional array or tensor; others unchanged."""
    is_scalar = getattr(value, 'ndim', None) == 0 and hasattr(value, 'item')
    return value.item() if is_scalar else value


def _as_float(value: Any) -> float | None:
    found = _plain(value)
    if isinstance(found, bool) or not isinstance(found, Real):
        return None
    try:
        return float(found)
    except OverflowError:  # an int beyond the largest float
        return float('inf')


def _inside(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(','))
    above = low <= value if interval[0] == '[' else low < value
    below = value <= high if interval[-1] == ']' else value < high
    return above and below


def _refusal(name: str, what: str, value: Any, hint: str = '') -> ValueError:
    advice = hint and f'; {hint}'
    return ValueError(f'{name} must be {what}, got {value!r}{advice}.')
