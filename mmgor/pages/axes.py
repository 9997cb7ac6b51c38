"""Where the ticks of an axis are."""

import math
from collections.abc import Sequence

_STEPS = (1, 2, 5, 10)


def bounds(values: Sequence[float], log: bool = False) -> tuple[float, float]:
    """Ends of an axis that shows all values, with a little room.

    Args:
        values (Sequence[float]): Finite, positive if ``log``, at least one.
        log (bool): Whether the axis is logarithmic.
    """
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** 0.05 if high > low else 1.5
        return low / room, high * room
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at equal distances.

    Args:
        low (float): Lower end of the axis.
        high (float): Upper end, above ``low``.
        most (int): Most numbers.

    Example:
        >>> ticks(0.0, 10.0)
        [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in _STEPS if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Dividing by a whole number gives 0.3 where 3 * 0.1 does not.
    inverse = round(1 / step)
    return [
        n / inverse if step < 1 else n * step for n in range(first, last + 1)
    ]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers of a logarithmic axis: powers of ten, and those between
    where there would be few.

    Args:
        low (float): Lower end of the axis, positive.
        high (float): Upper end, above ``low``.

    Example:
        >>> log_ticks(0.5, 200.0)
        [1.0, 10.0, 100.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 5)
    found = [10.0**n for n in range(first, last + 1, every)]
    inside = [x for x in found if low <= x <= high]
    if len(inside) >= 3:
        return inside
    found = [s * 10.0**n for n in range(first, last) for s in (1, 2, 5)]
    inside = [x for x in found if low <= x <= high]
    return inside if len(inside) >= 2 else ticks(low, high)
