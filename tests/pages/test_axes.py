"""The ticks of an axis are round numbers inside of it."""

import pytest

from mmgor.pages.axes import bounds, log_ticks, ticks


@pytest.mark.parametrize(
    'low, high, expected',
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.8, 0.15, [-0.8, -0.6, -0.4, -0.2, 0.0]),
        (1.0, 3.0, [1.0, 1.5, 2.0, 2.5, 3.0]),
        (4.0, 104.0, [20.0, 40.0, 60.0, 80.0, 100.0]),
        (0.0, 4e-4, [0.0, 1e-4, 2e-4, 3e-4, 4e-4]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    'low, high, expected',
    [
        (0.009, 1.2, [0.01, 0.1, 1.0]),
        (0.015, 0.9, [0.02, 0.05, 0.1, 0.2, 0.5]),
        # No two numbers of 1, 2 or 5 are inside.
        (2.1, 2.6, [2.1, 2.2, 2.3, 2.4, 2.5, 2.6]),
    ],
)
def test_log_ticks(low, high, expected):
    assert log_ticks(low, high) == pytest.approx(expected)


def test_bounds_leave_room():
    assert bounds([0.0, 10.0]) == (-0.5, 10.5)
    assert bounds([3.0]) == pytest.approx((2.7, 3.3))
    assert bounds([0.0]) == (-1.0, 1.0)
    low, high = bounds([1.0, 100.0], log=True)
    assert (low * high, high / low) == pytest.approx((100, 100**1.1))
