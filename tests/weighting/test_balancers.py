"""Balancers by losses against hand-computed values; what all must do."""

import math
import threading
from itertools import pairwise

import pytest
import torch
from balancers import (
    BALANCERS,
    build,
    call,
    descend,
    kd_gradient_share,
    kd_share,
    name_of,
    weights_in,
)
from mmengine import dist
from torch import nn

from mmgor.registry import MODELS
from mmgor.weighting import functional as F

every = pytest.mark.parametrize('cfg', BALANCERS, ids=name_of)


def pair(task, kd):
    return torch.tensor([float(task), float(kd)])


def close(got, want, **kwargs):
    torch.testing.assert_close(got, torch.as_tensor(want), **kwargs)


# Formulas.


def test_uncertainty_by_hand():
    theta = pair(0.0, math.log(2.0))  # sigma = 1, 2
    close(F.precision_weights(theta), [1 / 2, 1 / 8])
    # 1 - 0.25 / 1 and 1 - 3 / 4; then 1 - 3 = -2, bounded.
    close(F.uncertainty_gradient(theta, pair(0.25, 3.0)), [0.75, 0.25])
    assert F.uncertainty_gradient(theta, pair(3.0, 3.0))[0] == -1


@pytest.mark.parametrize('name', ['Uncertainty', 'RevisedUncertainty'])
def test_uncertainty_descends_the_paper_loss(name):
    """Its value, and the sign and the zero of its slope."""
    weighting = build(dict(type=f'{name}Weighting'))
    for sigma in (0.3, 1.0, 2.5):
        for loss in (0.01, 0.5, 4.0):
            weighting.theta_task.data.fill_(math.log(sigma))
            weighting.theta_kd.data.fill_(math.log(sigma))
            out = weighting(
                dict(loss_cls=torch.tensor(loss)),
                dict(loss_kd_a=torch.tensor(loss)),
            )
            total = out['loss_cls'] + out['loss_kd_a'] + out['loss_gor']
            log_sigma = torch.tensor(math.log(sigma), requires_grad=True)
            variance = torch.exp(2 * log_sigma)
            prior = {
                'Uncertainty': log_sigma,
                'RevisedUncertainty': torch.log(1 + variance),
            }[name]
            paper = loss / (2 * variance) + prior
            assert total.item() == pytest.approx(2 * paper.item(), rel=1e-5)
            paper.backward()
            total.backward()
            slope = weighting.theta_task.grad.item()
            assert slope * log_sigma.grad.item() > 0
            weighting.zero_grad()


def test_revised_uncertainty_rests_by_hand():
    # sigma^2 = (L + sqrt(L^2 + 8 L)) / 4: 1 for L = 1, 4 / 5 of it for ...
    losses = pair(1.0, 0.02)
    variance = (losses + (losses**2 + 8 * losses).sqrt()) / 4
    assert variance[0].item() == 1.0
    theta = 0.5 * variance.log()
    close(
        F.revised_uncertainty_gradient(theta, losses),
        [0.0, 0.0],
        rtol=0,
        atol=1e-5,
    )


def test_inverse_loss_weights_by_hand():
    # softmax(2, 1) = 1 / (1 + e^-1); a temperature of 2 makes it (1, 0.5).
    for temperature, gap in ((1.0, 1.0), (2.0, 0.5)):
        first = 2 / (1 + math.exp(-gap))
        close(
            F.inverse_loss_weights(pair(0.5, 1.0), temperature),
            [first, 2 - first],
        )


def test_geometric_mean_by_hand():
    out = call(build(dict(type='GeometricMeanWeighting')), 1.0, 4.0)
    close(weights_in(out), [1.0, 0.25])
    total = out['loss_cls'] + out['loss_kd_a']
    assert total.item() == pytest.approx(math.sqrt(1.0 * 4.0))


def test_famo_weights_and_gradient_by_hand():
    # z = (1/2, 1/2); z / L = (1/2, 1/6), to a sum of 2.
    close(F.famo_weights(pair(0, 0), pair(1.0, 3.0)), [1.5, 0.5])
    # J d = 0.5 * (0.2 - 0.1, 0 - 0.1); theta is minus xi.
    close(F.famo_gradient(pair(0, 0), pair(0.2, 0.0), 0.0), [-0.05, 0.05])
    close(F.famo_gradient(pair(2, -2), pair(0, 0), 0.01), [0.02, -0.02])


def test_dwa_compares_windows():
    weighting = build(dict(type='DWAWeighting', interval=2))
    windows = [(1.0, 1.0), (0.5, 1.0), (0.5, 3.0)]
    seen = []
    for task, kd in windows:
        for wobble in (-0.1, 0.1):  # the mean is what counts
            out = call(weighting, task + wobble, kd + wobble)
            seen.append(weights_in(out))
    for got in seen[:4]:
        close(got, [1.0, 1.0])
    # r = (0.5, 1), T = 2: softmax(0.25, 0.5).
    first = 2 / (1 + math.exp(0.25))
    for got in seen[4:]:
        close(got, [first, 2 - first])
    # r = (1, 3): softmax(0.5, 1.5).
    first = 2 / (1 + math.exp(1.0))
    close(weights_in(call(weighting)), [first, 2 - first])


def test_rlw_draws_follow_from_the_seed():
    first, second, other = (
        build(dict(type='RLWWeighting', seed=seed)) for seed in (3, 3, 4)
    )
    generator = torch.Generator().manual_seed(3)
    draws = torch.randn(2**14, 2, generator=generator)
    for number in range(5):
        got = weights_in(call(first))
        close(got, 2 * torch.softmax(draws[number], 0))
        assert torch.equal(got, weights_in(call(second)))
        assert not torch.equal(got, weights_in(call(other)))


def test_rlw_draws_are_the_runs_own():
    def draws(run_seed):
        torch.manual_seed(run_seed)
        torch.rand(run_seed)  # whatever was drawn before
        return build(dict(type='RLWWeighting')).draws

    assert torch.equal(draws(1), draws(1))
    assert not torch.equal(draws(1), draws(2))
    assert torch.equal(
        draws(2), build(dict(type='RLWWeighting', seed=2)).draws
    )


def test_rlw_draws_are_those_of_rank_0(monkeypatch):
    """Ranks' seeds differ with randomness=dict(diff_rank_seed=True)."""
    first = build(dict(type='RLWWeighting', seed=0)).draws
    monkeypatch.setattr(dist, 'broadcast', lambda data: data.copy_(first))
    other = build(dict(type='RLWWeighting', seed=1)).draws
    assert torch.equal(first, other)


def test_rlw_resumes_with_the_draws_of_its_file():
    """A run without a seed in its config has another one when resumed."""
    first, second = (
        build(dict(type='RLWWeighting', seed=seed)) for seed in (0, 1)
    )
    call(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(weights_in(call(first)), weights_in(call(second)))


def test_rlw_is_one_in_the_mean():
    weighting = build(dict(type='RLWWeighting', seed=0))
    weights = 2 * torch.softmax(weighting.draws, 1)
    close(weights.mean(0), [1.0, 1.0], rtol=0, atol=0.02)
    assert weights.std(0).min() > 0.3


def test_famo_follows_adam_on_the_logits():
    """Against torch's Adam with autograd's Jacobian, as the paper's code."""
    weighting = build(dict(type='FAMOWeighting', gamma=0.01))
    logits = torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, weight_decay=0.01)
    losses = [pair(2.0 / (1 + i), 3.0 - 0.2 * i**0.5) for i in range(8)]
    call(weighting, *losses[0].tolist())
    for before, after in pairwise(losses):
        logits.grad = torch.autograd.grad(
            torch.softmax(logits, 0),
            logits,
            grad_outputs=before.log() - after.log(),
        )[0]
        adam.step()
        call(weighting, *after.tolist(), rate=0.1)
    close(-weighting.theta().detach(), logits.detach(), rtol=1e-3, atol=1e-5)
    # The task loss fell faster: the distillation loss gained share.
    assert kd_share(call(weighting, *losses[-1].tolist())) > 0.5


# What holds for every balancer.


@every
def test_weights_are_positive_and_detached(cfg):
    weighting = build(cfg)
    for task, kd in ((0.5, 2.0), (3.0, 0.2), (0.4, 0.4)):
        out = call(weighting, task, kd, angle=(-0.2, 1.0))
        weights = weights_in(out)
        assert torch.isfinite(weights).all() and (weights > 0).all()
        assert not weights.requires_grad
        close(out['loss_cls'].detach(), weights[0] * task)
        close(out['loss_kd_a'].detach(), weights[1] * kd)
        assert out['gor_raw_task'] == torch.tensor(task)
        assert out['gor_raw_kd'] == torch.tensor(kd)


@every
@pytest.mark.parametrize('bad', [math.nan, math.inf, 0.0])
@pytest.mark.parametrize('after', [0, 4])
def test_unusable_losses_leave_the_state_alone(cfg, bad, after):
    weighting = build(cfg)
    for number in range(after):
        call(weighting, 0.5 - 0.05 * number, 2.0, angle=(-0.2, 1.0))
    before = {k: v.clone() for k, v in weighting.state_dict().items()}
    out = call(weighting, 0.5, bad)
    assert all(
        torch.equal(value, before[key])
        for key, value in weighting.state_dict().items()
    )
    weights = weights_in(out)
    assert torch.isfinite(weights).all() and (weights > 0).all()


@every
@pytest.mark.parametrize('after', [1, 7])
def test_resume_is_exact(cfg, after):
    first, second = build(cfg), build(cfg)
    for number in range(after):
        call(first, 1.0 - 0.1 * number, 2.0)
    second.load_state_dict(first.state_dict())
    for kd in (1.4, 1.5, 1.1, 0.7):
        a, b = call(first, 0.3, kd), call(second, 0.3, kd)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


@every
def test_outside_training_nothing_is_learned(cfg):
    weighting = build(cfg)
    for kd in (2.0, 1.0):
        call(weighting, 0.5, kd)
    weighting.eval()
    before = {k: v.clone() for k, v in weighting.state_dict().items()}
    with torch.no_grad():
        out = weighting(
            dict(loss_cls=torch.tensor(0.1)), dict(loss_kd_a=torch.tensor(9.0))
        )
    assert torch.isfinite(weights_in(out)).all()
    assert all(
        torch.equal(value, before[key])
        for key, value in weighting.state_dict().items()
    )


@every
def test_the_student_gets_the_weighted_gradients(cfg):
    torch.manual_seed(0)
    trunk, head = nn.Linear(3, 4), nn.Linear(4, 2)
    inputs, wanted, taught = (torch.randn(5, n) for n in (3, 2, 2))

    def losses():
        shared = trunk(inputs)
        out = head(shared)
        task, kd = (out - wanted).square().mean(), (out - taught).abs().mean()
        return task, kd, shared

    student = [*trunk.parameters(), *head.parameters()]
    task, kd, _ = losses()
    of_task = torch.autograd.grad(task, student, retain_graph=True)
    of_kd = torch.autograd.grad(kd, student)
    weighting = build(cfg)
    for _ in range(4):
        task, kd, shared = losses()
        out = weighting(dict(loss_cls=task), dict(loss_kd_a=kd), [shared])
        descend(weighting)
    sum(out[key] for key in out if 'loss' in key).backward()
    weights = weights_in(out)
    for parameter, a, b in zip(student, of_task, of_kd):
        close(parameter.grad, weights[0] * a + weights[1] * b)
    for theta in weighting.parameters():
        assert theta.grad is not None


class TwoRanks:
    """The mean over two threads, as a collective of two processes."""

    def __init__(self):
        self.rank = threading.local()
        self.slots = [None, None]
        self.barrier = threading.Barrier(2, timeout=20)

    def all_reduce(self, data, op):
        assert op == 'mean'
        self.slots[self.rank.value] = data.clone()
        self.barrier.wait()
        mean = (self.slots[0] + self.slots[1]) / 2
        self.barrier.wait()
        data.copy_(mean)


@every
def test_ranks_have_equal_weights(cfg, monkeypatch):
    ranks = TwoRanks()
    monkeypatch.setattr(dist, 'all_reduce', ranks.all_reduce)
    weightings, seen = [build(cfg), build(cfg)], [[], []]

    def train(rank):
        ranks.rank.value = rank
        for step in range(7):
            losses = (0.5 + 0.1 * step * rank, 2.0 - 0.2 * step - rank * 0.3)
            out = call(weightings[rank], *losses, angle=(0.2 - rank, 1.0))
            seen[rank].append(weights_in(out))

    threads = [threading.Thread(target=train, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen[0]) == len(seen[1]) == 7
    assert all(torch.equal(a, b) for a, b in zip(*seen))
    states = [weighting.state_dict() for weighting in weightings]
    assert all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


# A distillation loss of another unit, from the 20th of 200 steps on.

FACTORS = (1.0, 1e3, 1e-3)


def shares_after(cfg, factor):
    """Shares of the distillation loss and its gradient, means at the end."""
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


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(type='UWSOWeighting', temperature=0), 'temperature must be'),
        (dict(type='DWAWeighting', interval=0), 'interval >= 1'),
        (dict(type='DWAWeighting', temperature=-1), 'temperature > 0'),
        (dict(type='FAMOWeighting', gamma=-1), 'gamma must be at least 0'),
        (dict(type='GradNormWeighting', alpha=-1), 'alpha must be at least'),
        (
            dict(type='CAGradWeighting', radius=1.0),
            r'radius must be in \[0, 1',
        ),
    ],
)
def test_bad_arguments(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)
