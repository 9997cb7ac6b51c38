"""Feature losses without parameters."""

import math

import pytest
import torch

from mmgor.distillation.losses.features import (
    attention_transfer,
    cwd,
    feature_mse,
    pkd,
)


def maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator)


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
    """Rounding can make one; its gradient must not be of size 1 / EPS."""
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    s[:, 1] = 0.0
    s.requires_grad_()
    loss = pkd(s, t)
    loss.backward()
    alone = pkd(s.detach()[:, [0, 2]], t[:, [0, 2]])
    # Against zeros, half of the teacher's unit variance remains: 1/2.
    want = (2 * alone + 0.5) / 3
    torch.testing.assert_close(loss.detach(), want, rtol=1e-4, atol=1e-5)
    assert (s.grad[:, 1] == 0).all() and 0 < s.grad.abs().max() < 1


def test_cwd_is_the_mean_over_images_and_channels_times_t_squared():
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


def test_attention_transfer_by_hand():
    # Attention (9, 16) of length sqrt(337) against (1, 0).
    s = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    t = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    want = 1 - 9 / math.sqrt(337)
    assert attention_transfer(s, t).item() == pytest.approx(want, rel=1e-5)


def test_attention_transfer_is_one_minus_the_cosine():
    s, t = maps(3, 5, 4, 6)
    attention = [(x**2).mean(1).flatten(1) for x in (s, t[:, :2])]
    want = 1 - torch.cosine_similarity(*attention).mean()
    torch.testing.assert_close(attention_transfer(s, t[:, :2]), want)
    same = t.clone().requires_grad_()
    loss = attention_transfer(same, -3 * t)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert same.grad.abs().max() < 1e-6
