"""Fixed-point multipliers and requantization, against hand-computed values."""

import pytest
import torch

from mmgor.deploy.integer_reference.scaling import (
    quantize_multiplier,
    requantize,
    rescale,
)
from tests.support.integers import ints


@pytest.mark.parametrize(
    'real, multiplier, shift',
    [
        (1.0, 2**30, 30),
        (0.75, 3 * 2**29, 31),
        (5.0, 5 * 2**28, 28),
        (2.0**31 - 1, 2**31 - 1, 0),
        (2.0**31 - 0.75, 2**31 - 1, 0),
        (1 - 2.0**-40, 2**30, 30),  # rounds up to 1
        (2.0**-40, 2**22, 62),
        (1e-300, 0, 62),
    ],
)
def test_multiplier_by_hand(real, multiplier, shift):
    got = quantize_multiplier(real)
    assert [int(v) for v in got] == [multiplier, shift]


def test_multiplier_has_31_bits():
    real = torch.logspace(-9, 9, 500, dtype=torch.float64)
    multiplier, shift = quantize_multiplier(real)
    assert (multiplier >= 2**30).all()
    error = multiplier.double() / 2.0 ** shift.double() / real - 1
    assert error.abs().max() <= 2.0**-31


@pytest.mark.parametrize(
    'real', [0.0, -1.0, 2.0**31 - 0.25, 2.0**31, float('nan')]
)
def test_factors_outside_are_refused(real):
    with pytest.raises(ValueError, match=r'below 2\*\*31 - 0\.5, got'):
        quantize_multiplier(torch.tensor([1.0, real]))


def test_halves_go_to_even():
    values = ints(-7, -5, -3, -1, 1, 3, 5, 7)
    got = rescale(values, *quantize_multiplier(0.5))
    assert got.tolist() == [-4, -2, -2, 0, 0, 2, 2, 4]
    # One of 2**31 steps beside a half.
    one_more = torch.tensor(2**30 + 1)
    assert rescale(ints(1), one_more, torch.tensor(31)).tolist() == [1]


def test_rescale_at_the_ends_of_int32():
    values = ints(-(2**31), 2**31 - 1)
    largest = torch.tensor(2**31 - 1), torch.tensor(0)
    expected = [int(v) * (2**31 - 1) for v in values]
    assert rescale(values, *largest).tolist() == expected
    tiny = quantize_multiplier(2.0**-33)
    assert rescale(values, *tiny).tolist() == [0, 0]


def test_requantize_by_hand():
    accumulator = ints(-100, -3, 0, 5, 7, 1000)
    # times 0.5: -50, -1.5, 0, 2.5, 3.5, 500
    got = requantize(accumulator, *quantize_multiplier(0.5), 10, 0, 15)
    assert got.dtype == torch.int32
    assert got.tolist() == [0, 8, 10, 12, 14, 15]
