"""Gradient balancers against their papers' algorithms, on explicit vectors."""

import math

import pytest
import torch

from mmgor.weighting import functional as F
from tests.support.balancers import (
    BY_GRADIENTS,
    build,
    call,
    name_of,
    weights_in,
)

# Norms and cosines: agreement, right angles, conflict, very different sizes.
CASES = [
    (norm, cosine)
    for norm in (1.0, 3.0, 0.01, 100.0)
    for cosine in (-0.95, -0.3, 0.0, 0.3, 0.95)
]
cases = pytest.mark.parametrize('norm, cosine', CASES)


def vectors(norm, cosine):
    """Two gradients in the plane, in float64; the first has norm 1."""
    kd = torch.tensor([cosine, math.sqrt(1 - cosine**2)]) * norm
    return torch.tensor([1.0, 0.0]).double(), kd.double()


def stats(norm, cosine):
    return torch.tensor([1.0, norm]), torch.tensor(cosine)


def direction(weights, gradients):
    return weights[0].double() * gradients[0] + weights[1] * gradients[1]


def close(got, want, **kwargs):
    torch.testing.assert_close(
        got, torch.as_tensor(want, dtype=got.dtype), **kwargs
    )


@cases
def test_imtl_g_projects_equally(norm, cosine):
    gradients = vectors(norm, cosine)
    weights = F.imtl_g_weights(stats(norm, cosine)[0])
    d = direction(weights, gradients)
    on_task, on_kd = (d @ g / g.norm() for g in gradients)
    assert on_task.item() == pytest.approx(on_kd.item(), rel=1e-5, abs=1e-7)
    assert weights.sum().item() == pytest.approx(2.0)


@cases
def test_pcgrad_is_the_algorithm(norm, cosine):
    """Algorithm 1: a task's gradient is projected if it conflicts."""
    gradients = vectors(norm, cosine)
    total = torch.zeros(2).double()
    for own, other in (gradients, gradients[::-1]):
        inner = own @ other
        if inner < 0:
            own = own - inner / other.norm() ** 2 * other
        total += own
    d = direction(F.pcgrad_weights(*stats(norm, cosine)), gradients)
    close(d, total, rtol=1e-4, atol=1e-5)


def test_pcgrad_by_hand():
    # c = -1/2, n = (1, 2): 1 + 2 / 2 and 1 + 1 / 4.
    weights = F.pcgrad_weights(torch.tensor([1.0, 2.0]), torch.tensor(-0.5))
    close(weights, [2.0, 1.25])


@cases
def test_mgda_is_the_shortest_vector_of_the_hull(norm, cosine):
    task, kd = vectors(norm, cosine)
    x = torch.linspace(0, 1, 100001).double()[:, None]
    shortest = (x * task + (1 - x) * kd).norm(dim=1).min()
    weights = F.mgda_weights(*stats(norm, cosine))
    assert weights.sum().item() == pytest.approx(2.0)
    d = direction(weights / 2, (task, kd))
    assert d.norm().item() == pytest.approx(shortest.item(), rel=1e-3)


def test_mgda_by_hand():
    norms = torch.tensor([1.0, 2.0])
    # At right angles x = 4 / 5.
    close(F.mgda_weights(norms, torch.tensor(0.0)), [1.6, 0.4])
    # c = 0.6 > 1 / 2: the shorter gradient itself.
    close(F.mgda_weights(norms, torch.tensor(0.6)), [2.0, 0.0])
    equal = torch.tensor([3.0, 3.0])
    close(F.mgda_weights(equal, torch.tensor(1.0)), [1.0, 1.0])


@cases
@pytest.mark.parametrize('radius', [0.0, 0.1, 0.5, 0.9])
def test_cagrad_minimises_the_dual(norm, cosine, radius):
    """Algorithm 1, with the dual minimised on a fine grid."""
    task, kd = vectors(norm, cosine)
    mean = (task + kd) / 2
    x = torch.linspace(0, 1, 200001).double()[:, None]
    mixed = x * task + (1 - x) * kd
    size = radius * mean.norm()
    best = mixed[(mixed @ mean + size * mixed.norm(dim=1)).argmin()]
    want = mean + size * best / best.norm()
    weights = F.cagrad_weights(*stats(norm, cosine), radius)
    got = direction(weights / 2, (task, kd))
    assert (got - want).norm() < 2e-3 * want.norm()


@cases
def test_cagrad_maximises_the_smaller_improvement(norm, cosine):
    """The primal problem, solved on the boundary of the ball."""
    gradients = vectors(norm, cosine)
    weights = F.cagrad_weights(*stats(norm, cosine), 0.5)
    mean = (gradients[0] + gradients[1]) / 2
    d = direction(weights / 2, gradients)
    radius = 0.5 * mean.norm()
    assert (d - mean).norm() <= radius * (1 + 1e-4)
    angle = torch.linspace(0, 2 * math.pi, 20001).double()[:, None]
    circle = mean + radius * torch.cat([angle.cos(), angle.sin()], 1)
    worse = torch.stack([circle @ g for g in gradients]).amin(0).max()
    reached = min(d @ g for g in gradients)
    assert reached >= worse - 1e-4 * abs(worse)


def test_cagrad_by_hand():
    # Equal norms: x = 1/2, so d = g_0 + c |g_0| g_0 / |g_0| = (1 + c) g_0.
    for cosine in (-0.5, 0.0, 0.5, 1.0):
        weights = F.cagrad_weights(
            torch.tensor([2.0, 2.0]), torch.tensor(cosine), 0.5
        )
        close(weights, [1.5, 1.5], rtol=1e-4, atol=0)
    # At right angles, with n = (1, 10) and c = 0.1, the small gradient gets
    # the whole radius. |g_0| = sqrt(101) / 2, so 1 + 2 * 0.1 * sqrt(101) / 2.
    weights = F.cagrad_weights(
        torch.tensor([1.0, 10.0]), torch.tensor(0.0), 0.1
    )
    assert weights[0].item() == pytest.approx(1 + 0.1 * 101**0.5, rel=1e-3)
    assert weights[1].item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize('cosine', [-1.0, -0.9999999, 0.9999999, 1.0])
@pytest.mark.parametrize('norm', [1e-6, 0.999, 1.0, 1e6])
def test_collinear_gradients_give_finite_weights(norm, cosine):
    norms, angle = stats(norm, cosine)
    for weights in (
        F.imtl_g_weights(norms),
        F.pcgrad_weights(norms, angle),
        F.mgda_weights(norms, angle),
        F.cagrad_weights(norms, angle, 0.5),
    ):
        assert torch.isfinite(weights).all() and (weights >= 0).all()


def test_gradnorm_gradient_by_hand():
    ones = torch.ones(2)
    norms = torch.tensor([1.0, 3.0])
    # m = 2; slopes -0.5 * (-1) and -1.5 * (+1), minus half their sum, -0.5.
    got = F.gradnorm_gradient(ones, norms, ones, ones, 1.5)
    close(got, [1.0, -1.0])
    balanced = F.gradnorm_gradient(ones, ones, ones, ones, 1.5)
    close(balanced, [0.0, 0.0])
    # r = (4/3, 2/3) with equal norms: the first loss lags and should get more.
    lagging = F.gradnorm_gradient(
        ones, ones, torch.tensor([1.0, 0.5]), ones, 1.0
    )
    close(lagging, [1.0, -1.0])


@pytest.mark.parametrize(
    'theta, norms, rates',
    [
        ((0.3, -0.4), (0.7, 2.0), (0.8, 0.5)),  # one above its target
        ((-1.5, 1.5), (1.0, 1.0), (1.0, 0.222)),  # both below: 0
        ((-1.5, 1.5), (1.0, 1.5), (1.0, 0.222)),  # both below
        ((2.0, -2.0), (1.0, 100.0), (1.0, 1.0)),
    ],
)
def test_gradnorm_gradient_is_the_paper_loss_slope(theta, norms, rates):
    """Autograd of eq. 2, over the mean, through w = 2 softmax(-theta)."""
    theta, norms, losses = map(torch.tensor, (theta, norms, rates))
    theta.requires_grad_()
    weights = 2 * torch.softmax(-theta, 0)
    sizes = weights * norms
    target = sizes.mean() * (losses / losses.mean()) ** 1.5
    (sizes - target.detach()).abs().sum().backward()
    got = F.gradnorm_gradient(
        weights.detach(), norms, losses, torch.ones(2), 1.5
    )
    close(got, theta.grad / sizes.mean().detach(), rtol=1e-4, atol=1e-6)


def test_gradnorm_arrives_at_its_target():
    """At rates of 1 the target is equal norms, within a step size."""
    weighting = build(dict(type='GradNormWeighting'))
    for _ in range(200):
        out = call(weighting, 0.5, 20.0, rate=0.02)
    weights = weights_in(out)
    assert weights.sum().item() == pytest.approx(2.0)
    assert abs(math.log(weights[0] * 0.5 / (weights[1] * 20))) < 0.05


@pytest.mark.parametrize('cfg', BY_GRADIENTS, ids=name_of)
def test_measured_gradients_reach_the_equations(cfg):
    """The norms are the losses' values, 0.5 and 2, and c = -0.6."""
    out = call(build(cfg), 0.5, 2.0, angle=(-0.6, 1.0))
    assert out['gor_grad_cosine'].item() == pytest.approx(-0.6, rel=1e-5)
    norms, cosine = torch.tensor([0.5, 2.0]), torch.tensor(-0.6)
    want = {
        'GoR-gradient': torch.tensor([1.0, 0.25]),  # of one size
        'GradNorm': torch.ones(2),  # theta starts at 0
        'IMTLG': F.imtl_g_weights(norms),
        'PCGrad': F.pcgrad_weights(norms, cosine),
        'CAGrad': F.cagrad_weights(norms, cosine, 0.5),
        'MGDA': F.mgda_weights(norms, cosine),
    }[name_of(cfg)]
    close(weights_in(out), want)


@pytest.mark.parametrize('cfg', BY_GRADIENTS, ids=name_of)
def test_half_features_give_the_same_weights(cfg):
    def weights(dtype):
        weighting = build(cfg)
        torch.manual_seed(0)
        for _ in range(3):
            x = torch.randn(8, 100).to(dtype).requires_grad_()
            y = x.float()
            out = weighting(
                dict(loss_cls=(y**2).mean() * 1e-2),
                dict(loss_kd_a=(y + 1).abs().mean() * 1e-3),
                [x],
            )
        return weights_in(out)

    close(weights(torch.float16), weights(torch.float32), rtol=0.02, atol=0)


@pytest.mark.parametrize('cfg', BY_GRADIENTS, ids=name_of)
def test_no_shared_features_is_an_error(cfg):
    x = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match='no shared features'):
        build(cfg)(dict(loss_cls=x), dict(loss_kd_a=x), [])
