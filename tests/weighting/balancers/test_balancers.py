"""Properties of every balancer."""

import math

import pytest
import torch
from torch import nn

from mmgor.registry import MODELS
from tests.support.balancers import (
    BALANCERS,
    build,
    call,
    close,
    descend,
    name_of,
    on_two_ranks,
    weights_in,
)

every = pytest.mark.parametrize('cfg', BALANCERS, ids=name_of)


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
def test_outside_training_nothing_changes(cfg):
    weighting = build(cfg)
    for kd in (2.0, 1.0):
        call(weighting, 0.5, kd)
    weighting.eval()
    before = {k: v.clone() for k, v in weighting.state_dict().items()}
    assert not weighting.needs_gradients()
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


@every
def test_ranks_have_equal_weights(cfg, monkeypatch):
    weightings, seen = [build(cfg), build(cfg)], [[], []]

    def train(rank):
        for step in range(7):
            losses = (0.5 + 0.1 * step * rank, 2.0 - 0.2 * step - rank * 0.3)
            out = call(weightings[rank], *losses, angle=(0.2 - rank, 1.0))
            seen[rank].append(weights_in(out))

    on_two_ranks(train, monkeypatch)
    assert len(seen[0]) == len(seen[1]) == 7
    assert all(torch.equal(a, b) for a, b in zip(*seen))
    states = [weighting.state_dict() for weighting in weightings]
    assert all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(type='UWSOWeighting', temperature=0), 'temperature must be'),
        (dict(type='DWAWeighting', interval=0), 'interval must be an'),
        (dict(type='DWAWeighting', temperature=-1), 'temperature must'),
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
