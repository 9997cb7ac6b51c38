"""Values of a config: read them, or say what came and what to write.

Every constructor takes its settings through these. Each function returns the
value as a plain Python one, so that NumPy's and torch's scalars are as good,
and raises ValueError where it is none of the kind: True is no number, '4' is
no integer, NaN and infinity are in no interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

#: How intervals are called; others as they are written.
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
        name (str): Of the setting, as a config has it.
        value (Any): What the config says.
        interval (str): With a bracket where a bound belongs to it, such as
            '[0, 1)'.
        hint (str): What else helps to choose a value.

    Raises:
        ValueError: If it is none.

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
    """An integer from ``low`` to ``high``, both included; None: no bound.

    Raises:
        ValueError: If it is none.
    """
    found = _plain(value)
    sound = isinstance(found, Integral) and not isinstance(found, bool)
    if not sound or not (
        (low is None or low <= found) and (high is None or found <= high)
    ):
        what = 'an int' if low is None else f'an int of at least {low}'
        what = what if high is None else f'an integer from {low} to {high}'
        raise _refusal(name, what, value, hint)
    return int(found)


def integers(
    name: str, value: Any, low: int, example: str, count: int | None = None
) -> list[int]:
    """Integers of at least ``low`` in a list or tuple that is not empty.

    Args:
        name (str): Of the setting.
        value (Any): What the config says.
        low (int): Least of each.
        example (str): One that is right, for the message.
        count (int, optional): How many; None: any number.

    Raises:
        ValueError: If it is none.
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
        ValueError: If it is neither.
    """
    found = _plain(value)
    if not isinstance(found, bool):
        raise _refusal(name, 'True or False', value)
    return found


def text(name: str, value: Any, example: str) -> str:
    """A str that is not empty.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, str) or not value:
        raise _refusal(name, f'a str such as {example!r}', value)
    return value


def choice(
    name: str, value: Any, options: Iterable[str], hint: str = ''
) -> str:
    """One of several words.

    Raises:
        ValueError: If it is none of them.
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
        ValueError: If it is none.
    """
    if not isinstance(value, Mapping):
        raise _refusal(name, 'a dict', value, f'expected e.g. {example}')
    return dict(value)


def known_keys(name: str, given: Mapping, known: Iterable[str]) -> None:
    """Make sure that a dict has no other keys.

    Raises:
        ValueError: If it has, with the known ones that are spelt alike.
    """
    options = sorted(known)
    unknown = [key for key in given if key not in options]
    if unknown:
        raise ValueError(
            f'unknown key(s) {unknown} in {name}; expected some of '
            f'{options}{nearest(unknown, options)}.'
        )


def nearest(given: Iterable[Any], known: Sequence[str]) -> str:
    """'; did you mean ...?' or nothing."""
    words = [word for word in given if isinstance(word, str)]
    close = [get_close_matches(word, known, n=1) for word in words]
    found = [name for names in close for name in names]
    return f'; did you mean {", ".join(map(repr, found))}?' if found else ''


def _plain(value: Any) -> Any:
    """A 0-dimensional array's or tensor's only value."""
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
    told = hint and f'; {hint}'
    return ValueError(f'{name} must be {what}, got {value!r}{told}.')
