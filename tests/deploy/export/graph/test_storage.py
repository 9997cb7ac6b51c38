"""Stored integers of a grid, by hand."""

import pytest

from mmgor.deploy.export.graph.storage import (
    BOUNDS,
    Storage,
    saturating,
    stored_grid,
)


@pytest.mark.parametrize(
    ('bounds', 'stored', 'symmetric', 'expected'),
    [
        # Unsigned and signed ranges keep their integers.
        ((0, 255), 'grid', False, ('uint8', 0, 0, 255)),
        ((-8, 7), 'grid', False, ('int8', 0, -8, 7)),
        # All uint8: signed ones move up by half of their range.
        ((0, 15), 'uint8', False, ('uint8', 0, 0, 15)),
        ((-8, 7), 'uint8', False, ('uint8', 8, 0, 15)),
        ((-128, 127), 'uint8', False, ('uint8', 128, 0, 255)),
        # All int8: unsigned ones start at -128.
        ((0, 255), 'int8', False, ('int8', -128, -128, 127)),
        ((0, 3), 'int8', False, ('int8', -128, -128, -125)),
        ((-2, 1), 'int8', False, ('int8', 0, -2, 1)),
        # int8 with the zero point 0.
        ((0, 127), 'int8', True, ('int8', 0, 0, 127)),
        ((-128, 127), 'int8', True, ('int8', 0, -128, 127)),
    ],
)
def test_type_and_shift(bounds, stored, symmetric, expected):
    assert stored_grid(*bounds, stored, symmetric) == Storage(*expected)


@pytest.mark.parametrize('bounds', [(0, 255), (0, 128)])
def test_unsigned_8_bits_with_a_fixed_zero_point(bounds):
    with pytest.raises(ValueError, match='int8 holds -128 to 127, not the'):
        stored_grid(*bounds, 'int8', True)


@pytest.mark.parametrize('stored', BOUNDS)
@pytest.mark.parametrize('bits', range(2, 9))
def test_saturating_ends_at_the_top_of_the_type(stored, bits):
    storage = saturating(stored_grid(0, 2**bits - 1, stored, False))
    top = BOUNDS[stored][1]
    assert storage.high == top
    # The zero point of an unsigned grid is its smallest integer.
    assert storage.shift == storage.low == top - (2**bits - 1)
    assert storage.fills_type is (bits == 8)


@pytest.mark.parametrize(
    ('bounds', 'fills'),
    [
        ((-128, 127), True),
        ((-127, 127), True),  # -128 is one step more, nearer to the value
        ((-126, 127), False),
        ((-127, 126), False),
    ],
)
@pytest.mark.parametrize('stored', BOUNDS)
def test_one_integer_below_needs_no_clip(bounds, fills, stored):
    shift = 128 if stored == 'uint8' else 0
    low, high = (bound + shift for bound in bounds)
    assert Storage(stored, shift, low, high).fills_type is fills


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('stored', BOUNDS)
def test_a_range_of_255_integers_needs_no_clip(stored, symmetric):
    if symmetric and stored == 'uint8':
        return  # no target: it has no integers below zero
    storage = stored_grid(-127, 127, stored, symmetric)
    assert storage.high == BOUNDS[stored][1] and storage.fills_type
