"""``runner.train()`` called again: what hooks register is there once."""

from collections import Counter

import pytest
import torch
from mmengine.logging import MMLogger

from mmgor.hooks import (
    SafeCheckpointHook,
    gor_weight_hook,
    nonfinite_loss_hook,
)
from mmgor.weighting import GoRWeighting
from tests.support.toy_game import Toy, run

SGD = dict(type='SGD', lr=0.01, weight_decay=1e-4)


def toy():
    """Its distillation loss halves after five iterations."""
    return Toy(change_at=5, factor=0.5)


def train_on(runner, iters):
    """Go on until ``iters`` iterations are done in all."""
    runner.train_loop._max_iters = iters
    runner.train()


@pytest.mark.parametrize('lengths', [(6, 12), (4, 8, 12)])
def test_thetas_move_as_in_one_training(tmp_path, lengths):
    hooks = [dict(type='NonFiniteLossHook')]
    _, whole = run(
        tmp_path / 'a', SGD, 12, model=toy(), hooks=hooks, theta_lr=0.1
    )
    runner, parts = run(
        tmp_path / 'b', SGD, lengths[0], model=toy(), hooks=hooks, theta_lr=0.1
    )
    for length in lengths[1:]:
        train_on(runner, length)
    want, got = (m.gor_weighting.state_dict() for m in (whole, parts))
    assert want['theta_kd'] < -0.1  # it has moved
    assert all(torch.equal(got[key], want[key]) for key in want)
    assert parts.distances == whole.distances


@pytest.fixture
def calls(monkeypatch):
    """How often hooks take the thetas' gradient and look at a step."""
    counts = Counter()

    def count(owner, name):
        stock = getattr(owner, name)

        def counted(*args):
            counts[name] += 1
            return stock(*args)

        monkeypatch.setattr(owner, name, counted)

    count(GoRWeighting, 'take_gradient')
    count(nonfinite_loss_hook, 'pass_non_finite_on')
    count(nonfinite_loss_hook, '_on_any_rank')
    return counts


@pytest.mark.parametrize('error', [False, True])
def test_each_step_is_taken_and_checked_once(tmp_path, calls, error):
    """An error ends a training without ``after_train``."""
    model = toy()
    hooks = [dict(type='NonFiniteLossHook')]
    runner, _ = run(tmp_path, SGD, 3, model=model, hooks=hooks)
    if error:
        model.change_at = None  # compared with a number
        with pytest.raises(TypeError):
            train_on(runner, 6)
        model.change_at = 5
    assert set(calls.values()) == {3} and len(calls) == 3
    train_on(runner, 10)
    assert set(calls.values()) == {10}


def test_nothing_stays_registered_after_training(tmp_path, calls):
    hooks = [dict(type='NonFiniteLossHook')]
    runner, model = run(tmp_path, SGD, 4, model=toy(), hooks=hooks)
    assert not model.gor_weighting.moved_by_hook
    calls.clear()
    loss, _ = model.parse_losses(model(torch.ones(1)))
    runner.optim_wrapper.update_params(loss)
    assert not calls


def test_the_default_rate_follows_from_each_length(tmp_path, monkeypatch):
    """60 over 300 and over 600 optimizer steps."""
    rates = []

    def noted(weighting, optimizer, rate):
        rates.append(rate)
        return []

    monkeypatch.setattr(gor_weight_hook, 'move_thetas', noted)
    runner, _ = run(tmp_path, SGD, 300, model=toy())
    train_on(runner, 600)
    assert rates == [0.2, 0.1]


def test_a_bad_first_step_goes_back_to_what_the_training_started_from(
    tmp_path,
):
    """Not to the state that the training before it left."""
    model = toy()
    hooks = [dict(type='NonFiniteLossHook')]
    runner, _ = run(tmp_path, SGD, 4, model=model, hooks=hooks)
    model.gor_weighting.units.fill_(7.0)
    model.change_at, model.factor = 0, float('nan')
    train_on(runner, 5)
    assert model.gor_weighting.units.tolist() == [7.0, 7.0]


def test_checkpoints_go_where_they_went(tmp_path, monkeypatch):
    """mmengine's hook appends the run's name to ``out_dir`` in each
    training, and ours must not take its own file backend for a given one."""
    warned = []
    monkeypatch.setattr(
        MMLogger, 'warning', lambda self, text, *_: warned.append(text)
    )
    hook = SafeCheckpointHook(
        interval=1, by_epoch=False, out_dir=str(tmp_path / 'out')
    )
    runner, _ = run(tmp_path / 'run', SGD, 1, model=toy(), hooks=[hook])
    train_on(runner, 2)
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*.pth')}
    assert names == {'out/run/iter_1.pth', 'out/run/iter_2.pth'}
    assert not [text for text in warned if 'checkpoints go to' in text]
