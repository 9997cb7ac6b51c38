import math

import pytest
import torch

from mmgor.quantization.quantizers import functional as F

ZERO = torch.tensor(0.0)


def bounds(low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(low), torch.tensor(high)


@pytest.mark.parametrize(
    'bits, signed, narrow, expected',
    [
        (4, True, True, (-7, 7)),
        (4, True, False, (-8, 7)),
        (4, False, False, (0, 15)),
        (2, True, True, (-1, 1)),
        (8, False, True, (0, 255)),
    ],
)
def test_integer_range(bits, signed, narrow, expected):
    assert F.integer_range(bits, signed, narrow) == expected


def test_round_ste_is_half_to_even_with_gradient_one():
    x = torch.tensor([0.5, 1.5, -2.4], requires_grad=True)
    y = F.round_ste(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 2.0, -2.0]
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_fake_quantize_by_hand():
    # 0.3 / 0.2 = 1.5 -> 2; -0.5 / 0.2 = -2.5 -> -2; 9 -> bound 7.
    x = torch.tensor([0.3, -0.5, 9.0, -9.0])
    y = F.fake_quantize(x, torch.tensor(0.2), ZERO, *bounds(-7, 7))
    torch.testing.assert_close(y, torch.tensor([0.4, -0.4, 1.4, -1.4]))


def test_fake_quantize_gradients_by_hand():
    x = torch.tensor([0.35, 9.0, -9.0], requires_grad=True)
    scale = torch.tensor(0.2, requires_grad=True)
    F.fake_quantize(x, scale, ZERO, *bounds(-7, 7)).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    # round(1.75) - 1.75 + 7 - 7
    torch.testing.assert_close(scale.grad, torch.tensor(0.25))


def test_affine_represents_zero_exactly():
    y = F.fake_quantize(
        torch.tensor([0.0, -0.28, 5.0]),
        torch.tensor(0.1),
        torch.tensor(-0.28),
        *bounds(0, 15),
    )
    # shift round(-2.8) = -3: levels 3, 0.2 -> 0, 15.
    torch.testing.assert_close(y, torch.tensor([0.0, -0.3, 1.2]))


@pytest.mark.parametrize('offset', [0.0, -0.13])
def test_backward_matches_autograd(offset):
    torch.manual_seed(0)
    x = torch.randn(3, 50, requires_grad=True)
    scale = torch.tensor([[0.05], [0.2], [0.7]], requires_grad=True)
    shift = torch.full((3, 1), offset, requires_grad=True)
    grad = torch.randn(3, 50)
    F.fake_quantize(x, scale, shift, *bounds(-8, 7)).backward(grad)
    gx, gs, go = F.fake_quantize_backward(
        grad, x.detach(), scale.detach(), shift.detach(), *bounds(-8, 7)
    )
    torch.testing.assert_close(gx, x.grad)
    torch.testing.assert_close(gs, scale.grad[:, 0])
    torch.testing.assert_close(go, shift.grad[:, 0])


def test_lsq_gradient_factor():
    assert F.lsq_gradient_factor(100, 7) == pytest.approx(1 / math.sqrt(700))


def test_lsq_gradient_factor_is_rounded_as_float32_does():
    """Bit by bit the same as a computation with float32 tensors."""
    for count in (1, 3, 100, 12345, 2**24 + 1, 10**9 + 7):
        for qmax in (1, 7, 15, 127, 255):
            want = (torch.tensor(float(qmax)) * count).rsqrt().item()
            assert F.lsq_gradient_factor(count, qmax) == want


def test_pact_by_hand():
    x = torch.tensor([-1.0, 0.4, 3.0], requires_grad=True)
    alpha = torch.tensor(1.5, requires_grad=True)
    y = F.pact(x, alpha, *bounds(0, 15))
    y.sum().backward()
    torch.testing.assert_close(y, torch.tensor([0.0, 0.4, 1.5]))
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    assert alpha.grad.item() == 1.0


def test_pact_signed_clips_both_sides():
    x = torch.tensor([-3.0, 3.0])
    alpha = torch.tensor(1.4, requires_grad=True)
    y = F.pact(x, alpha, *bounds(-8, 7))
    y.sum().backward()
    torch.testing.assert_close(y, torch.tensor([-1.4, 1.4]))
    assert alpha.grad.item() == 0.0


def test_dorefa_keeps_the_peak_and_zero():
    weight = torch.tensor([0.0, 0.01, -2.0])
    quantized = F.dorefa_weight(weight, torch.tensor(7), False)
    # tanh(0.01) / tanh(2) * 7 = 0.07 -> 0.
    torch.testing.assert_close(quantized, torch.tensor([0.0, 0.0, -2.0]))


def test_dorefa_per_channel_and_its_gradient_by_hand():
    weight = torch.tensor([[0.5, -2.0], [0.05, 0.2]], requires_grad=True)
    quantized = F.dorefa_weight(weight, torch.tensor(7), True)
    # tanh(0.5) / tanh(2) * 7 = 3.36 -> 3; tanh(0.05) / tanh(0.2) * 7 = 1.77.
    want = torch.tensor([[3 / 7 * 2, -2.0], [2 / 7 * 0.2, 0.2]])
    torch.testing.assert_close(quantized, want)
    quantized[0, 0].backward()
    # Straight through: peak * (1 - tanh^2(w)) / tanh(peak).
    slope = 2 * (1 - math.tanh(0.5) ** 2) / math.tanh(2)
    assert weight.grad[0, 0].item() == pytest.approx(slope, rel=1e-5)


def test_at_least_lets_gradients_through_below():
    x = torch.tensor([0.1, 2.0], requires_grad=True)
    y = F.at_least(x, 1.0)
    y.sum().backward()
    assert y.tolist() == [1.0, 2.0]
    assert x.grad.tolist() == [1.0, 1.0]


def test_minmax_scale_ignores_low_when_unsigned():
    low, high = torch.tensor(-3.0), torch.tensor(1.5)
    assert F.minmax_scale(low, high, *bounds(0, 15)).item() == pytest.approx(
        0.1
    )
    assert F.minmax_scale(low, high, *bounds(-7, 7)).item() == pytest.approx(
        3 / 7
    )
