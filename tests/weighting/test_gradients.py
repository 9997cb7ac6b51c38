"""gradient_stats: in half precision, on two ranks, and with overflows."""

import math

import pytest
import torch

from mmgor.weighting import gradient_stats
from tests.support.balancers import (
    BY_GRADIENTS,
    build,
    close,
    descend,
    name_of,
    on_two_ranks,
    weights_in,
)


def half_losses(task, kd):
    """Losses with these gradients at two features, from a half-precision head.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Both losses and the features.
    """
    shared = torch.ones(2, requires_grad=True)
    head = shared.half().float()
    return head @ torch.tensor(task), head @ torch.tensor(kd), shared


def weigh_half(weighting, task, kd):
    task, kd, shared = half_losses(task, kd)
    return weighting(dict(loss_cls=task), dict(loss_kd_a=kd), [shared])


def test_a_gradient_that_overflows_if_scaled_is_measured_unscaled():
    """3000 * 4096 is too large for half precision, 3 * 2^-26 too small."""
    tiny = 2.0**-26
    task, kd, shared = half_losses((3 * tiny, 4 * tiny), (4e3, 3e3))
    norms, cosine = gradient_stats(task, kd, [shared])
    assert norms.tolist() == [5 * tiny, 5e3]
    assert cosine.item() == pytest.approx(24 / 25)


def test_ranks_measure_again_together(monkeypatch):
    """Norms 10 and 5000 on two ranks; only the second overflows."""
    seen = [None, None]

    def work(rank):
        kd = ((8.0, 6.0), (4e3, 3e3))[rank]
        task, kd, shared = half_losses((3.0, 4.0), kd)
        seen[rank] = gradient_stats(task, kd, [shared])

    on_two_ranks(work, monkeypatch)
    for norms, cosine in seen:
        assert norms.tolist() == [5.0, 2505.0]
        assert cosine.item() == pytest.approx(24 / 25)


@pytest.mark.parametrize('cfg', BY_GRADIENTS, ids=name_of)
def test_balancers_see_a_large_loss_of_a_half_precision_head(cfg):
    """Norms 5 and 5000 at right angles."""
    weighting = build(cfg)
    out = weigh_half(weighting, (3.0, 4.0), (4e3, -3e3))
    descend(weighting)
    if name_of(cfg) == 'GradNorm':  # its weights are the last step's
        out = weigh_half(weighting, (3.0, 4.0), (4e3, -3e3))
    want = {
        'GoR-gradient': [1.0, 1e-3],
        # Slopes 5 and -5000 over their mean, minus half of their sum: 1, -1;
        # theta = (-0.1, 0.1).
        'GradNorm': [2 / (1 + math.exp(-0.2)), 2 / (1 + math.exp(0.2))],
        'IMTLG': [2 * 1000 / 1001, 2 / 1001],
        'PCGrad': [1.0, 1.0],
        # The whole radius, 1/2 sqrt(5^2 + 5000^2) / 2, along the smaller.
        'CAGrad': [1 + 0.5 * (1 + 1e6) ** 0.5, 1.0],
        'MGDA': [2 * 1e6 / (1 + 1e6), 2 / (1 + 1e6)],
    }[name_of(cfg)]
    close(weights_in(out), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('cfg', BY_GRADIENTS, ids=name_of)
def test_gradients_that_overflow_even_unscaled_are_warned_about_once(
    cfg, monkeypatch
):
    told = []
    monkeypatch.setattr(
        'mmgor.weighting.base.print_log',
        lambda text, **_: told.append(text),
    )
    weighting = build(cfg)
    before = {k: v.clone() for k, v in weighting.state_dict().items()}
    # A loss that is not finite is NonFiniteLossHook's to report.
    weigh_half(weighting, (3.0, 4.0), (math.inf, 0.0))
    assert told == []
    for _ in range(3):
        out = weigh_half(weighting, (3.0, 4.0), (1e5, 0.0))
    (text,) = told
    assert text.startswith(cfg['type'])
    assert 'got 5 for the task loss and inf' in text
    close(weights_in(out), [1.0, 1.0])
    after = weighting.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_an_overflow_moves_no_theta():
    weighting = build(dict(type='GoRWeighting', form='gradient', init_iters=1))
    for _ in range(3):  # the balanced start lasts until a call counts
        weigh_half(weighting, (3.0, 4.0), (1e5, 0.0))
        assert weighting.needs_gradients() and weighting.count.max() == 0
    weigh_half(weighting, (3.0, 4.0), (6.0, 8.0))
    assert weighting.units.tolist() == [5.0, 10.0]
    weighting.take_gradient()
    weighting.strength.mul_(2)  # as if the norms had grown since
    weighting.calls.fill_(10)  # measured once in 10 calls
    weigh_half(weighting, (3.0, 4.0), (1e5, 0.0))
    assert weighting.take_gradient().tolist() == [0.0, 0.0]
    assert weighting.needs_gradients()


def test_small_gradients_of_half_features_are_not_lost():
    x = torch.full((4, 1000), 0.1, dtype=torch.float16, requires_grad=True)
    y = torch.full((4, 1000), 0.1, requires_grad=True)
    loss = lambda z: (z.float() ** 2).mean() * 1e-3  # noqa: E731
    half, _ = gradient_stats(loss(x), loss(x), [x])
    full, _ = gradient_stats(loss(y), loss(y), [y])
    torch.testing.assert_close(half, full, rtol=0.02, atol=0)


def test_small_gradients_of_a_half_head_are_not_lost():
    """Norm layers give float32 features even under autocast."""
    torch.manual_seed(0)
    x = torch.randn(1, 8, 32, 32, requires_grad=True)
    head = torch.nn.Conv2d(8, 8, 3, padding=1)

    def measure(half):
        with torch.autocast('cpu', torch.float16, enabled=half):
            out = head(x).float()
        return gradient_stats((out**2).mean() * 1e-3, (x**2).mean(), [x])

    half, full = measure(True), measure(False)
    torch.testing.assert_close(half.norms, full.norms, rtol=0.02, atol=0)
    torch.testing.assert_close(half.cosine, full.cosine, rtol=0.02, atol=0)


@pytest.mark.parametrize('unit', [1.0, 1e-6, 1e-12])
def test_the_cosine_does_not_depend_on_units(unit):
    x = torch.zeros(2, requires_grad=True)
    task = x[0] * 3.0
    kd = (x * torch.tensor([0.6, 0.8])).sum() * unit
    assert gradient_stats(task, kd, [x]).cosine.item() == pytest.approx(0.6)
    assert gradient_stats(kd, kd, [x]).cosine.item() == pytest.approx(1.0)
    assert gradient_stats(task, 0 * kd, [x]).cosine.item() == 0
