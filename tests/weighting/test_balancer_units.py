"""A distillation loss of another unit: who balances it, who follows it."""

import pytest
import torch
from balancer_bench import build, call, kd_gradient_share, kd_share

FACTORS = (1.0, 1e3, 1e-3)


def shares_after(cfg, factor):
    """Shares of the distillation loss and its gradient, means at the end.

    The loss has another unit from the 20th of 200 steps on.
    """
    weighting = build(cfg)
    shares = []
    for step in range(200):
        kd = 2.0 * (factor if step >= 20 else 1.0)
        weighting.measure_gradients = True
        out = call(weighting, 0.5, kd, rate=0.1)
        shares.append((kd_share(out), kd_gradient_share(out)))
    return torch.tensor(shares[-50:]).mean(0).tolist()


@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize(
    'name, tolerance',
    [
        ('Uncertainty', 1e-3),  # at rest w L = 1 / 2
        ('GeometricMean', 1e-6),  # half of the geometric mean each
    ],
)
def test_loss_shares_that_know_no_units(name, tolerance, factor):
    share, _ = shares_after(dict(type=f'{name}Weighting'), factor)
    assert share == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize('factor', FACTORS)
def test_gradient_shares_of_imtl_g_know_no_units(factor):
    _, share = shares_after(dict(type='IMTLGWeighting'), factor)
    assert share == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize('name', ['DWA', 'RLW', 'PCGrad'])
def test_shares_that_follow_the_units(name):
    """The larger loss rules: these do not balance sizes."""
    shares = [
        shares_after(dict(type=f'{name}Weighting'), factor)[1]
        for factor in FACTORS
    ]
    assert shares[1] > 0.98 and shares[2] < 0.02


def test_the_ball_bounds_cagrad_shares():
    """All of it goes to the smaller: c times the larger's weighted norm."""
    cfg = dict(type='CAGradWeighting', radius=0.5)
    assert shares_after(cfg, 1e3)[1] == pytest.approx(2 / 3, abs=0.01)
    assert shares_after(cfg, 1e-3)[1] == pytest.approx(1 / 3, abs=0.01)


def test_mgda_overcorrects():
    """At right angles the ratio of the norms is turned round."""
    weighting = build(dict(type='MGDAWeighting'))
    for ratio in (1e-2, 1.0, 1e2):
        out = call(weighting, 0.5, 0.5 * ratio, angle=(0.0, 1.0))
        assert out['gor_grad_ratio'].item() == pytest.approx(1 / ratio)


def test_units_known_from_the_start_do_not_matter_to_gradnorm():
    """L(0) and the norms have the unit, too."""
    for kd in (2e-3, 2.0, 2e3):
        weighting = build(dict(type='GradNormWeighting'))
        shares = []
        for _ in range(150):
            out = call(weighting, 0.5, kd, rate=0.1)
            shares.append(kd_gradient_share(out))
        # It moves about its target by a step size.
        assert torch.tensor(shares[-50:]).mean().item() == pytest.approx(
            0.5, abs=0.06
        )


@pytest.mark.parametrize('factor', [1e3, 1e-3])
def test_a_unit_is_a_single_jump_to_famo(factor):
    """Towards the loss that jumped up, by some step sizes at first."""
    weighting = build(dict(type='FAMOWeighting', gamma=0.0))
    for _ in range(5):
        call(weighting, 0.5, 2.0, rate=0.1)
    assert kd_share(call(weighting, 0.5, 2.0)) == pytest.approx(0.5)
    call(weighting, 0.5, 2.0 * factor, rate=0.1)
    share = kd_share(call(weighting, 0.5, 2.0 * factor, rate=0.1))
    assert (share > 0.5) is (factor > 1)
    assert share == pytest.approx(0.5, abs=0.2)
