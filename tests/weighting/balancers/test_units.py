"""A distillation loss whose unit changes: which balancers compensate."""

import math

import pytest
import torch

from tests.support.balancers import build, call, kd_gradient_share, kd_share

FACTORS = (1.0, 1e3, 1e-3)


def shares_after(cfg, factor):
    """Mean shares of the distillation loss and its gradient at the end.

    From step 20 of 200 on, the loss is multiplied by ``factor``.
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
def test_loss_shares_that_do_not_depend_on_units(name, tolerance, factor):
    share, _ = shares_after(dict(type=f'{name}Weighting'), factor)
    assert share == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize(
    'form, want',
    [('ratio', 2 / 3), ('zero_sum', 1 / 2), ('barrier', 1 / 2)],
)
def test_loss_shares_of_gor_do_not_depend_on_units(form, want, factor):
    share, _ = shares_after(dict(type='GoRWeighting', form=form), factor)
    assert share == pytest.approx(want, abs=5e-3)


@pytest.mark.parametrize(
    'form, task, kd',
    [
        ('ratio', 1.0, 2 * math.exp(20)),
        ('barrier', 1.0, math.exp(20)),
        ('zero_sum', 2 * math.exp(-20), 2.0),
        ('gradient', 2 * math.exp(-20), 2.0),
    ],
)
def test_a_vanishing_kd_loss_is_followed_to_the_limit(form, task, kd):
    """log(1e-9) = -20.7 is beyond the limit of -20."""
    weighting = build(
        dict(type='GoRWeighting', form=form, init_iters=1, gradient_interval=1)
    )
    call(weighting, 1.0, 1.0)
    for _ in range(100):
        out = call(weighting, 1.0, 1e-9, rate=0.3)
    assert out['gor_w_task'].item() == pytest.approx(task, rel=1e-4)
    assert out['gor_w_kd'].item() == pytest.approx(kd, rel=1e-4)


@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize(
    'cfg, tolerance',
    [
        (dict(type='GoRWeighting', form='gradient'), 5e-3),
        (dict(type='IMTLGWeighting'), 1e-6),
    ],
    ids=['GoR', 'IMTLG'],
)
def test_gradient_shares_that_do_not_depend_on_units(cfg, tolerance, factor):
    _, share = shares_after(cfg, factor)
    assert share == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize(
    'factor, want', [(1.0, 0.6129), (1e3, 0.7190), (1e-3, 0.0739)]
)
def test_loss_shares_of_revised_uncertainty_by_hand(factor, want):
    """At rest the weighted loss is 2 L / (L + sqrt(L^2 + 8 L)).

    That is 0.3904 for the task loss of 0.5, and 0.6180, 0.9990 and 0.0311 for
    distillation losses of 2, 2000 and 0.002.
    """
    cfg = dict(type='RevisedUncertaintyWeighting')
    share, _ = shares_after(cfg, factor)
    assert share == pytest.approx(want, abs=2e-3)


def test_uwso_takes_the_larger_or_the_smaller_loss():
    """The inverses of large losses are alike; a small one's saturates."""
    cfg = dict(type='UWSOWeighting')
    # softmax(2, 1 / 2000): 1.7615 * 0.5 against 0.2385 * 2000.
    assert shares_after(cfg, 1e3)[0] == pytest.approx(0.99816, abs=1e-4)
    # softmax(2, 500).
    assert shares_after(cfg, 1e-3) == [1.0, 1.0]


@pytest.mark.parametrize('name', ['Fixed', 'DWA', 'RLW', 'PCGrad'])
def test_shares_that_follow_the_units(name):
    """The larger loss dominates: these do not balance sizes."""
    shares = [
        shares_after(dict(type=f'{name}Weighting'), factor)[1]
        for factor in FACTORS
    ]
    assert shares[1] > 0.98 and shares[2] < 0.02


def test_the_radius_bounds_the_shares_of_cagrad():
    """The smaller gradient gets a norm of c times that of the larger one."""
    cfg = dict(type='CAGradWeighting', radius=0.5)
    assert shares_after(cfg, 1e3)[1] == pytest.approx(2 / 3, abs=0.01)
    assert shares_after(cfg, 1e-3)[1] == pytest.approx(1 / 3, abs=0.01)


def test_mgda_overcorrects():
    """At right angles the ratio of the norms is inverted."""
    weighting = build(dict(type='MGDAWeighting'))
    for ratio in (1e-2, 1.0, 1e2):
        out = call(weighting, 0.5, 0.5 * ratio, angle=(0.0, 1.0))
        assert out['gor_grad_ratio'].item() == pytest.approx(1 / ratio)


def test_units_known_from_the_start_do_not_matter_to_gradnorm():
    """L(0) and the norms have the same unit."""
    for kd in (2e-3, 2.0, 2e3):
        weighting = build(dict(type='GradNormWeighting'))
        shares = []
        for _ in range(150):
            out = call(weighting, 0.5, kd, rate=0.1)
            shares.append(kd_gradient_share(out))
        # It moves around its target by a step size.
        assert torch.tensor(shares[-50:]).mean().item() == pytest.approx(
            0.5, abs=0.06
        )


@pytest.mark.parametrize('factor', [1e3, 1e-3])
def test_a_change_of_unit_is_a_single_jump_to_famo(factor):
    """It moves towards the loss that jumped up, by a few step sizes."""
    weighting = build(dict(type='FAMOWeighting', gamma=0.0))
    for _ in range(5):
        call(weighting, 0.5, 2.0, rate=0.1)
    assert kd_share(call(weighting, 0.5, 2.0)) == pytest.approx(0.5)
    call(weighting, 0.5, 2.0 * factor, rate=0.1)
    share = kd_share(call(weighting, 0.5, 2.0 * factor, rate=0.1))
    assert (share > 0.5) is (factor > 1)
    assert share == pytest.approx(0.5, abs=0.2)
