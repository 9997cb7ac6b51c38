"""Where the integers of a grid lie in int8."""

from dataclasses import dataclass

_LOWEST, _HIGHEST = -128, 127


@dataclass(frozen=True)
class Int8Grid:
    """The values ``scale * (q - zero_point)`` for ``low <= q <= high``.

    Args:
        scale (float): Step size in units of the tensor.
        zero_point (int): Integer that stands for the value 0, in int8.
        low (int): Smallest integer, in int8.
        high (int): Largest integer, in int8.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    def clipped_values(
        self, nonnegative: bool
    ) -> tuple[float | None, float | None]:
        """The bounds that rounding to int8 does not keep by itself.

        One integer may be left below: what was limited to -127 steps may
        become -128, one step more, and nearer to what it was.

        Args:
            nonnegative (bool): Whether no value is below zero before it is
                rounded.

        Returns:
            tuple[float | None, float | None]: Smallest and largest value, in
            units of the tensor; None where int8 ends there, or one integer
            below, or no value is beyond.
        """
        held = self.low <= _LOWEST + 1 or (
            nonnegative and self.zero_point >= self.low
        )
        low = (self.low - self.zero_point) * self.scale
        high = (self.high - self.zero_point) * self.scale
        return None if held else low, None if self.high == _HIGHEST else high


def int8_grid(scale: float, zero_point: int, qmin: int, qmax: int) -> Int8Grid:
    """Shift the integers of a grid into int8; its values stay the same.

    The largest integer becomes 127 if the zero point allows it, so that the
    type's own saturation clips above. An unsigned grid of 8 bits gets the
    zero point -128, one of 4 bits 112.

    Args:
        scale (float): Step size in units of the tensor.
        zero_point (int): Integer that stands for the value 0. It may lie
            outside of ``[qmin, qmax]``.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.

    Returns:
        Int8Grid: The same values.

    Raises:
        ValueError: If int8 can't hold the integers together with the zero
            point.
    """
    for shift in (_HIGHEST - qmax, _LOWEST - qmin):
        grid = Int8Grid(scale, zero_point + shift, qmin + shift, qmax + shift)
        ends = (grid.zero_point, grid.low, grid.high)
        if all(_LOWEST <= end <= _HIGHEST for end in ends):
            return grid
    raise ValueError(
        f'integers from {qmin} to {qmax} with zero point {zero_point}; '
        'expected up to 256 integers that int8 can hold together with the '
        'zero point'
    )
