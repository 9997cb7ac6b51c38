"""Balancers that use the losses, against hand-computed values."""

import math
from itertools import pairwise

import pytest
import torch
from mmengine import dist

from mmgor.weighting import functional as F
from tests.support.balancers import build, call, close, kd_share, weights_in


def pair(task, kd):
    return torch.tensor([float(task), float(kd)])


def test_uncertainty_by_hand():
    theta = pair(0.0, math.log(2.0))  # sigma = 1, 2
    close(F.precision_weights(theta), [1 / 2, 1 / 8])
    # 1 - 0.25 / 1 and 1 - 3 / 4; then 1 - 3 = -2, bounded.
    close(F.uncertainty_gradient(theta, pair(0.25, 3.0)), [0.75, 0.25])
    assert F.uncertainty_gradient(theta, pair(3.0, 3.0))[0] == -1


@pytest.mark.parametrize('name', ['Uncertainty', 'RevisedUncertainty'])
def test_uncertainty_descends_the_paper_loss(name):
    """The value is the paper's; the slope has the same sign and zero."""
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
    # sigma^2 = (L + sqrt(L^2 + 8 L)) / 4, which is 1 for L = 1.
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
    # softmax(2, 1) starts with 1 / (1 + e^-1); at a temperature of 2 it is
    # softmax(1, 0.5).
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
    # z = (1/2, 1/2); z / L = (1/2, 1/6), scaled to a sum of 2.
    close(F.famo_weights(pair(0, 0), pair(1.0, 3.0)), [1.5, 0.5])
    # J d = 0.5 * (0.2 - 0.1, 0 - 0.1); theta is minus xi.
    close(F.famo_gradient(pair(0, 0), pair(0.2, 0.0), 0.0), [-0.05, 0.05])
    close(F.famo_gradient(pair(2, -2), pair(0, 0), 0.01), [0.02, -0.02])


def test_dwa_compares_windows():
    weighting = build(dict(type='DWAWeighting', interval=2))
    windows = [(1.0, 1.0), (0.5, 1.0), (0.5, 3.0)]
    seen = []
    for task, kd in windows:
        for wobble in (-0.1, 0.1):  # only the mean counts
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
        torch.rand(run_seed)  # earlier draws do not matter
        return build(dict(type='RLWWeighting')).draws

    assert torch.equal(draws(1), draws(1))
    assert not torch.equal(draws(1), draws(2))
    assert torch.equal(
        draws(2), build(dict(type='RLWWeighting', seed=2)).draws
    )


def test_rlw_draws_are_those_of_rank_0(monkeypatch):
    """With randomness=dict(diff_rank_seed=True) the ranks' seeds differ."""
    first = build(dict(type='RLWWeighting', seed=0)).draws
    monkeypatch.setattr(dist, 'broadcast', lambda data: data.copy_(first))
    other = build(dict(type='RLWWeighting', seed=1)).draws
    assert torch.equal(first, other)


def test_rlw_resumes_with_the_draws_of_its_file():
    """Without a seed in its config, a run has another one when resumed."""
    first, second = (
        build(dict(type='RLWWeighting', seed=seed)) for seed in (0, 1)
    )
    call(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(weights_in(call(first)), weights_in(call(second)))


def test_rlw_weights_have_a_mean_of_one():
    weighting = build(dict(type='RLWWeighting', seed=0))
    weights = 2 * torch.softmax(weighting.draws, 1)
    close(weights.mean(0), [1.0, 1.0], rtol=0, atol=0.02)
    assert weights.std(0).min() > 0.3


def test_famo_follows_adam_on_the_logits():
    """Against torch's Adam and autograd's Jacobian, as in the paper's code."""
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
