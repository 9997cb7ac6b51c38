"""GoRWeightHook warns when only one of the losses is trained."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger

from mmgor.hooks.gor_weight_hook import GoRWeightHook
from tests.support.toy_game import Constant, run


def outputs(weights, raw):
    values = (*weights, *raw)
    names = ('gor_w_task', 'gor_w_kd', 'gor_raw_task', 'gor_raw_kd')
    return dict(zip(names, map(torch.tensor, values)))


def listening_runner():
    """A runner in its seventh iteration, and the list of its warnings."""
    said = []
    runner = SimpleNamespace(
        iter=6, logger=SimpleNamespace(warning=said.append)
    )
    return runner, said


def test_a_small_weight_of_a_large_loss_is_not_a_collapse():
    runner, said = listening_runner()
    GoRWeightHook().after_train_iter(
        runner, 0, outputs=outputs((1.0, 1e-6), (0.5, 5e5))
    )
    assert said == []


@pytest.mark.parametrize('weights', [(2.0, 1e-6), (float('nan'), 1.0)])
def test_collapse_and_nan_are_warned_about_once(weights):
    runner, said = listening_runner()
    hook = GoRWeightHook()
    for _ in range(2):
        hook.after_train_iter(runner, 0, outputs=outputs(weights, (1.0, 1.0)))
    assert len(said) == 1 and 'iteration 7' in said[0]


def warnings_of(tmp_path, monkeypatch, weighting, thetas=(0.0, 0.0)):
    """The warnings about a collapse in a run of two iterations."""
    model = Constant(weighting)
    for parameter, theta in zip(model.gor_weighting.parameters(), thetas):
        parameter.data.fill_(theta)
    said = []
    monkeypatch.setattr(
        MMLogger, 'warning', lambda self, text, *_: said.append(text)
    )
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    run(tmp_path, optimizer, 2, model=model)
    return [text for text in said if 'only the other is trained' in text]


@pytest.mark.parametrize('name', ['task_weight', 'kd_weight'])
def test_a_weight_set_to_zero_by_hand_is_not_a_collapse(
    tmp_path, monkeypatch, name
):
    weighting = {'type': 'FixedWeighting', name: 0.0}
    assert warnings_of(tmp_path, monkeypatch, weighting) == []


@pytest.mark.parametrize(
    'weighting, thetas',
    [
        (dict(type='UncertaintyWeighting'), (0.0, 30.0)),  # e^-30
        (dict(type='MGDAWeighting'), ()),  # computed, 0 of parallel gradients
        (dict(type='FixedWeighting', task_weight=1e-6), ()),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_other_small_weights_are_a_collapse(
    tmp_path, monkeypatch, weighting, thetas
):
    (text,) = warnings_of(tmp_path, monkeypatch, weighting, thetas)
    assert 'at iteration 1:' in text


@pytest.mark.parametrize('raw', [(math.inf, 1.0), (1.0, math.inf)])
def test_a_weight_of_zero_does_not_hide_an_infinite_loss(raw):
    runner, said = listening_runner()
    for values in ((1.0, 1.0), raw):
        assert said == []
        hook = GoRWeightHook()
        hook._by_hand = True
        hook.after_train_iter(runner, 0, outputs=outputs((0.0, 1.0), values))
    assert len(said) == 1 and 'not finite' in said[0]


@pytest.mark.parametrize('at_end', [False, True])
def test_a_collapse_is_warned_about_within_five_iterations(tmp_path, at_end):
    """A check in each iteration would make the host wait for the device."""
    runner, said = listening_runner()
    runner.log_dir = str(tmp_path)
    hook = GoRWeightHook()
    for runner.iter in range(4 if at_end else 6):
        assert said == []
        weight = 1e-6 if runner.iter == 3 else 1.0
        hook.after_train_iter(
            runner, 0, outputs=outputs((1.0, weight), (1.0, 1.0))
        )
    if at_end:
        hook.after_train(runner)
    assert 'at iteration 4:' in said[0]
