"""KL divergences and entropies of class scores."""

import math

import pytest
import torch

from mmgor.distillation.losses.class_kl import (
    bernoulli_entropy,
    bernoulli_kl,
    categorical_entropy,
    categorical_kl,
)


def test_bernoulli_kl_by_hand():
    # p = sigmoid(0) = 0.5, q = sigmoid(log 3) = 0.75.
    value = bernoulli_kl(torch.tensor(math.log(3)), torch.tensor(0.0))
    want = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert value.item() == pytest.approx(want, rel=1e-5)


def test_bernoulli_kl_gradient_is_q_minus_p():
    s = torch.tensor([0.3, -20.0], requires_grad=True)
    t = torch.tensor([1.0, 20.0])
    bernoulli_kl(s, t).sum().backward()
    torch.testing.assert_close(s.grad, s.sigmoid() - t.sigmoid())


def test_kl_is_zero_where_equal_and_finite_at_extremes():
    x = torch.tensor([-100.0, 0.0, 100.0])
    assert bernoulli_kl(x, x).abs().max() == 0
    assert torch.isfinite(bernoulli_kl(x, -x)).all()


def test_temperature_keeps_the_small_difference_limit():
    # T^2 KL(t/T || s/T) tends to the same quadratic form in the logits.
    s, t = torch.tensor(0.01), torch.tensor(0.0)
    assert bernoulli_kl(s, t, 1.0).item() == pytest.approx(
        bernoulli_kl(s, t, 4.0).item(), rel=1e-2
    )


def test_categorical_kl_matches_torch():
    torch.manual_seed(0)
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    want = torch.nn.functional.kl_div(
        (s / 2).log_softmax(-1), (t / 2).softmax(-1), reduction='none'
    ).sum(-1)
    torch.testing.assert_close(categorical_kl(s, t, 2.0), 4 * want)


def test_entropies_are_relative_to_their_maximum():
    # H(1/4) = 1/4 ln 4 + 3/4 ln 4/3.
    want = (math.log(4) / 4 + 0.75 * math.log(4 / 3)) / math.log(2)
    got = bernoulli_entropy(torch.tensor([0.0, -math.log(3), 99.0, -99.0]))
    torch.testing.assert_close(got, torch.tensor([1.0, want, 0.0, 0.0]))
    x = 3.0 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    reference = torch.distributions.Categorical(logits=x / 2).entropy()
    got = categorical_entropy(x, 2.0)
    torch.testing.assert_close(got, reference / math.log(4))
    torch.testing.assert_close(
        bernoulli_entropy(x, 2.0),
        torch.distributions.Bernoulli(logits=x / 2).entropy() / math.log(2),
    )
