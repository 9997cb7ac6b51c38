import math

import pytest
import torch

from mmgor.distillation.heads.detections import systematic_draw
from mmgor.distillation.heads.logits import flatten_anchors
from mmgor.distillation.losses.class_kl import bernoulli_kl, categorical_kl
from mmgor.distillation.losses.features import cwd, feature_mse, pkd
from mmgor.distillation.losses.location_weights import (
    foreground_weight,
    weighted_mean,
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


def test_foreground_weight_and_weighted_mean_by_hand():
    scores = torch.tensor([[0.1, 0.5], [0.2, 0.1]])
    weights = foreground_weight(scores, 2.0)
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.04]))
    mean = weighted_mean(torch.tensor([1.0, 3.0]), weights)
    assert mean.item() == pytest.approx((0.25 + 0.12) / 0.29)
    assert (foreground_weight(scores, 0.0) == 1).all()


def test_pkd_is_one_minus_correlation():
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    correlations = [
        torch.corrcoef(torch.stack([s[:, c].flatten(), t[:, c].flatten()]))[
            0, 1
        ]
        for c in range(3)
    ]
    want = 1 - torch.stack(correlations).mean()
    torch.testing.assert_close(pkd(s, t), want, rtol=1e-4, atol=1e-5)


def test_pkd_ignores_scale_and_shift():
    torch.manual_seed(0)
    s = torch.randn(2, 3, 4, 5)
    assert pkd(s, 7 * s + 3).item() == pytest.approx(0, abs=1e-5)
    assert pkd(s, -s).item() == pytest.approx(2, abs=1e-4)


def test_pkd_leaves_constant_channels_alone():
    """Rounding can make one; 1 / EPS would be its gradient's size."""
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    s[:, 1] = 0.0
    s.requires_grad_()
    loss = pkd(s, t)
    loss.backward()
    alone = pkd(s.detach()[:, [0, 2]], t[:, [0, 2]])
    # Against zeros, the teacher's unit variance is left: 1/2.
    want = (2 * alone + 0.5) / 3
    torch.testing.assert_close(loss.detach(), want, rtol=1e-4, atol=1e-5)
    assert (s.grad[:, 1] == 0).all() and 0 < s.grad.abs().max() < 1


def test_cwd_is_the_mean_over_pictures_and_channels_times_t_squared():
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    want = 0.0
    for n in range(2):
        for c in range(3):
            p = (t[n, c] / 4).flatten().softmax(0)
            q = (s[n, c] / 4).flatten().softmax(0)
            want += (p * (p / q).log()).sum().item()
    assert cwd(s, t, 4.0).item() == pytest.approx(16 * want / 6, rel=1e-4)


@pytest.mark.parametrize('loss', [pkd, cwd, feature_mse])
def test_gradients_of_feature_losses(loss):
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 2, 2, 3, 2, generator=generator).double()
    assert torch.autograd.gradcheck(loss, (s.requires_grad_(), t))


def test_cwd_by_hand():
    # One channel, two pixels: teacher (0.5, 0.5), student (0.75, 0.25).
    s = torch.tensor([math.log(3), 0.0]).view(1, 1, 1, 2)
    t = torch.zeros(1, 1, 1, 2)
    want = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert cwd(s, t).item() == pytest.approx(want, rel=1e-5)


def test_feature_mse():
    assert feature_mse(torch.zeros(2), torch.tensor([1.0, 3.0])) == 5


def test_flatten_anchors_follows_mmdets_order():
    # Two anchors, two classes; value = 10 * pixel + channel.
    x = torch.arange(4.0).view(1, 4, 1, 1) + torch.tensor([0.0, 10.0])
    flat = flatten_anchors(x, 2)
    assert flat.tolist() == [[[0, 1], [2, 3], [10, 11], [12, 13]]]


def test_systematic_draw_by_hand():
    scores = torch.tensor([0.9, 0.5, 0.3])
    # Running sums from 0.05: 0.95, 1.45, 1.75; from 0.35: 1.25, 1.75, 2.05.
    got = systematic_draw(scores, torch.tensor(0.05))
    assert got.tolist() == [False, True, False]
    got = systematic_draw(scores, torch.tensor(0.35))
    assert got.tolist() == [True, False, True]
    assert systematic_draw(scores[:0], torch.tensor(0.5)).tolist() == []


def test_systematic_draw_draws_by_score_and_always_as_many():
    scores = torch.tensor([0.05, 1.0, 0.71, 0.33, 0.0, 0.68, 1.0, 0.12])
    starts = (torch.arange(1000) + 0.5) / 1000
    drawn = torch.stack([systematic_draw(scores, u) for u in starts])
    torch.testing.assert_close(
        drawn.float().mean(0), scores, atol=2e-3, rtol=0
    )
    assert set(drawn.sum(1).tolist()) == {3, 4}  # the scores sum to 3.89
    assert drawn[:, [1, 6]].all() and not drawn[:, 4].any()
