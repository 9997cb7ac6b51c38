"""benchmarks/rounding_noise.py: movements by hand."""

import pytest
import rounding_noise
import torch


def test_mean_movement():
    moved = rounding_noise.Movement()
    # Standard deviations of 1 and 2.
    stock = [torch.tensor([1.0, 3.0]), torch.tensor([0.0, 4.0])]
    moved.add(stock, stock)
    moved.add(stock, [stock[0] + 0.5, stock[1] + 0.2])
    assert moved.mean == pytest.approx((0 + 0 + 0.5 + 0.1) / 4)
