"""Chooses the integers that stand for a grid in a file.

A grid has the values ``scale * (q - zero_point)`` for ``low <= q <= high``. If
q, the zero point and the bounds are shifted by one integer, the values stay
the same. So each runtime can get the type that it computes with, and nothing
is rounded a second time.
"""

from dataclasses import dataclass

#: Smallest and largest integer of each stored type.
BOUNDS = {'uint8': (0, 255), 'int8': (-128, 127)}


@dataclass(frozen=True)
class Storage:
    """The stored integers of a grid.

    Args:
        dtype (str): 'uint8' or 'int8'.
        shift (int): What was added to the integers and to the zero point.
        low (int): Smallest integer, after the shift.
        high (int): Largest integer, after the shift.
    """

    dtype: str
    shift: int
    low: int
    high: int

    @property
    def fills_type(self) -> bool:
        """Whether the type itself limits the range.

        One integer may be left below, as in ranges from -127 to 127. A value
        beyond that range then becomes -128 instead of -127: one step more,
        and nearer to what it was.
        """
        least, most = BOUNDS[self.dtype]
        return self.high == most and self.low - least <= 1


def stored_grid(low: int, high: int, stored: str, symmetric: bool) -> Storage:
    """Choose type and shift of a grid.

    Args:
        low (int): Smallest integer of the grid: 0 if it is unsigned.
        high (int): Largest integer of the grid.
        stored (str): 'grid', 'uint8' or 'int8', see :class:`.Target`.
        symmetric (bool): Whether the zero point has to stay where it is.

    Returns:
        Storage: Unsigned grids start at the smallest integer of the type, and
        a range that leaves one integer of it ends at the largest.

    Raises:
        ValueError: If the type does not hold the range.

    Example:
        >>> stored_grid(-8, 7, 'uint8', False)
        Storage(dtype='uint8', shift=8, low=0, high=15)
        >>> stored_grid(-127, 127, 'uint8', False)
        Storage(dtype='uint8', shift=128, low=1, high=255)
        >>> stored_grid(0, 15, 'int8', False)
        Storage(dtype='int8', shift=-128, low=-128, high=-113)
    """
    dtype = stored
    if stored == 'grid':
        dtype = 'uint8' if low >= 0 else 'int8'
    least, most = BOUNDS[dtype]
    fixed = symmetric or (dtype == 'int8' and low < 0)
    shift = 0 if fixed else least - low
    if not fixed and high + shift == most - 1:
        shift += 1
    low, high = low + shift, high + shift
    if low < least or high > most:
        raise ValueError(
            f'{dtype} holds {least} to {most}, not the integers {low} to '
            f'{high} of a range with a fixed zero point.'
        )
    return Storage(dtype, shift, low, high)


def saturating(storage: Storage) -> Storage:
    """Shift a grid so that its largest value is the type's largest integer.

    QuantizeLinear then limits the range above by itself. Below, something
    else has to: a ReLU, where the smallest value is 0.

    Example:
        >>> saturating(Storage('int8', -128, -128, -113))
        Storage(dtype='int8', shift=112, low=112, high=127)
    """
    more = BOUNDS[storage.dtype][1] - storage.high
    return Storage(
        storage.dtype,
        storage.shift + more,
        storage.low + more,
        storage.high + more,
    )
