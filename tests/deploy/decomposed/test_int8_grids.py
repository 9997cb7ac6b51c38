import pytest

from mmgor.deploy.decomposed.int8_grids import Int8Grid, int8_grid


@pytest.mark.parametrize(
    'stored, expected',
    [
        ((0, 0, 255), (-128, -128, 127)),  # unsigned, 8 bits
        ((0, -128, 127), (0, -128, 127)),  # signed, 8 bits
        ((0, 0, 15), (112, 112, 127)),  # unsigned, 4 bits
        ((0, -8, 7), (120, 112, 127)),  # signed, 4 bits
        ((3, 0, 255), (-125, -128, 127)),  # with an offset
        ((20, 0, 15), (-108, -128, -113)),  # every value is below zero
        ((-20, 0, 15), (92, 112, 127)),  # every value is above zero
    ],
)
def test_integers_are_shifted_together(stored, expected):
    grid = int8_grid(0.5, *stored)
    assert (grid.zero_point, grid.low, grid.high) == expected
    zero_point, qmin, qmax = stored
    assert (grid.low - grid.zero_point) * 0.5 == (qmin - zero_point) * 0.5
    assert (grid.high - grid.zero_point) * 0.5 == (qmax - zero_point) * 0.5


@pytest.mark.parametrize('zero_point', [-1, 256])
def test_a_zero_outside_of_eight_bits_is_refused(zero_point):
    with pytest.raises(ValueError, match=f'with zero point {zero_point}'):
        int8_grid(0.5, zero_point, 0, 255)


def test_int8_clips_where_it_ends():
    assert Int8Grid(0.5, -128, -128, 127).clipped_values(False) == (None, None)
    unsigned = Int8Grid(0.5, 112, 112, 127)
    assert unsigned.clipped_values(nonnegative=True) == (None, None)
    assert unsigned.clipped_values(nonnegative=False) == (0.0, None)
    signed = Int8Grid(0.5, 120, 112, 127)
    assert signed.clipped_values(nonnegative=True) == (None, None)
    assert signed.clipped_values(nonnegative=False) == (-4.0, None)
    # -128 would be one step more than -127.
    symmetric = Int8Grid(0.5, 0, -127, 127)
    assert symmetric.clipped_values(nonnegative=False) == (None, None)
    # Zero is below the grid: values above zero are not all inside.
    above = Int8Grid(0.5, 92, 112, 127)
    assert above.clipped_values(nonnegative=True) == (10.0, None)
    below = Int8Grid(0.5, -108, -128, -113)
    assert below.clipped_values(nonnegative=True) == (None, -2.5)
