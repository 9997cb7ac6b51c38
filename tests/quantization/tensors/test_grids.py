"""The fixed grid of a sigmoid's output."""

import pytest
import torch

from mmgor.quantization import FixedQuantizer


@pytest.mark.parametrize(
    ('symmetric', 'steps'), [(False, 256), (True, 128)], ids=str
)
def test_a_sigmoid_is_rounded_to_fixed_steps(symmetric, steps):
    quantizer = FixedQuantizer(symmetric)
    x = torch.tensor([0.0, 0.4 / steps, 0.6 / steps, 0.5, 1.0])
    expected = torch.tensor([0, 0, 1 / steps, 0.5, 1 - 1 / steps])
    torch.testing.assert_close(quantizer(x), expected)
    grid = quantizer.grid(x)
    assert (grid.qmin, grid.qmax) == (0, steps - 1)
    assert grid.scale == 1 / steps
    assert not grid.zero_point.any()
