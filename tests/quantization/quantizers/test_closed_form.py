"""Gradients in closed form against autograd of the plain functions."""

import pytest
import torch

from mmgor.quantization.quantizers import compiled, functional

QMAX = torch.tensor(7, dtype=torch.int32)


@pytest.mark.parametrize('qmin', [0, -8])
@pytest.mark.parametrize('alpha', [0.8, 1e-9])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_pact(qmin, alpha, dtype):
    """On both sides of the range, and with a range that has collapsed."""
    torch.manual_seed(0)
    low = torch.tensor(qmin, dtype=torch.int32)
    values = torch.randn(2, 3, 4, 5).to(dtype)
    gradient = torch.randn(2, 3, 4, 5).to(dtype)
    found = []
    for pact in (functional.pact, compiled.pact):
        x = values.to(memory_format=torch.channels_last).requires_grad_()
        level = torch.tensor(alpha, requires_grad=True)
        out = pact(x, level, low, QMAX)
        out.backward(gradient)
        found.append((out, x.grad, level.grad))
    for want, got in zip(*found):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize('per_channel', [True, False])
def test_dorefa_weight(per_channel):
    torch.manual_seed(0)
    values, gradient = torch.randn(2, 4, 3, 2, 2)
    values[1] = 0  # a dead channel
    found = []
    for round_weight in (functional.dorefa_weight, compiled.dorefa_weight):
        weight = values.clone().requires_grad_()
        out = round_weight(weight, QMAX, per_channel)
        out.backward(gradient)
        found.append((out, weight.grad))
    for want, got in zip(*found):
        torch.testing.assert_close(got, want)
