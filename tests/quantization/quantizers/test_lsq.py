import math

import pytest
import torch

from mmgor.quantization import LSQPlusQuantizer, LSQQuantizer
from tests.support.quantizers import ready


def test_gradient_of_the_step_by_hand():
    quantizer = ready(LSQQuantizer, 4, scale=0.2).train()
    quantizer(torch.tensor([0.35, 99.0])).sum().backward()
    # (round(1.75) - 1.75 + 15) / sqrt(2 * 15)
    gradient = quantizer.log_scale.grad.item()
    assert gradient == pytest.approx(15.25 / 30**0.5)


def test_an_adam_step_is_relative():
    for scale in (1e-4, 1.0, 1e3):
        quantizer = ready(LSQQuantizer, 4, scale=scale).train()
        quantizer(torch.tensor([99.0 * scale])).sum().backward()
        torch.optim.Adam(quantizer.parameters(), lr=0.01).step()
        ratio = quantizer.log_scale.exp().item() / scale
        assert ratio == pytest.approx(math.exp(-0.01), rel=1e-4)


def test_gradient_of_steps_per_channel_by_hand():
    quantizer = ready(
        LSQQuantizer,
        4,
        signed=True,
        scale=0.2,
        num_scales=2,
        per_channel=True,
        for_weight=True,
    )
    weight = torch.tensor([[0.35, 0.0, 0.0], [99.0, 0.0, 0.0]])
    quantizer(weight).sum().backward()
    # Range -7 to 7, three weights per channel: 1 / sqrt(3 * 7).
    want = torch.tensor([0.25, 7.0]) / 21**0.5
    torch.testing.assert_close(quantizer.log_scale.grad, want)


def test_lsq_plus_by_hand():
    quantizer = ready(LSQPlusQuantizer, 4, scale=0.1)
    quantizer.offset.data.fill_(-0.3)
    x = torch.tensor([-0.34, 0.52, 9.0])
    y = quantizer(x)
    # Levels 0..15 from -0.3: clipped, 8.2 -> 8, clipped at 15.
    torch.testing.assert_close(y, torch.tensor([-0.3, 0.5, 1.2]))
    y.sum().backward()
    # The two clipped values move with the offset; 1 / sqrt(3 * 15).
    assert quantizer.offset.grad.item() == pytest.approx(2 / 45**0.5)
