"""benchmarks/balancers.py: the tables of shares and costs."""

import math
from argparse import Namespace

import balancers
import pytest
import torch
from mmdet.utils import register_all_modules
from step_time import save_teachers

from mmgor.weighting import FixedWeighting

CFGS = {
    'Fixed': dict(type='FixedWeighting'),
    'Other': dict(type='FixedWeighting', kd_weight=3.0),
}


class NotedTraining:
    """Records its steps and alternates between two outputs."""

    # Task loss, distillation loss, ratio of the gradients.
    outputs = [(1.0, 3.0, 1.0), (1.0, 1.0, math.inf)]

    def __init__(self, cfg, args):
        self.weighting = Namespace()
        self.steps, NotedTraining.last = [], self

    def step(self, factor):
        self.steps.append((factor, self.weighting.measure_gradients))
        task, kd, ratio = self.outputs[len(self.steps) % 2]
        return dict(
            loss_cls=torch.tensor(task),
            loss_kd_out=torch.tensor(kd),
            gor_grad_ratio=torch.tensor(ratio),
        )


def test_shares_are_means_over_the_last_tenth(monkeypatch):
    monkeypatch.setattr(balancers, 'Training', NotedTraining)
    args = Namespace(steps=20, device='cpu')
    # (3/4 + 1/2) / 2 of the loss, (1/2 + 1) / 2 of the gradient.
    assert balancers.shares({}, 1000.0, args) == '62.5 / 75.0'
    steps = [(1.0, False)] * 2 + [(1000.0, False)] * 16 + [(1000.0, True)] * 2
    assert NotedTraining.last.steps == steps


def test_the_scale_table_has_one_row_per_balancer(monkeypatch, capsys):
    def cell(cfg, factor, args):
        return f'{cfg.get("kd_weight", 1.0)} * {factor}'

    monkeypatch.setattr(balancers, 'shares', cell)
    monkeypatch.setattr(balancers, 'BALANCERS', CFGS)
    balancers.scale_table(None)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        '| balancer | KD loss x 1 | KD loss x 1000 | KD loss x 0.001 |',
        '|---|---:|---:|---:|',
        '| Fixed | 1.0 * 1.0 | 1.0 * 1000.0 | 1.0 * 0.001 |',
        '| Other | 3.0 * 1.0 | 3.0 * 1000.0 | 3.0 * 0.001 |',
    ]


def test_a_training_step_by_hand(monkeypatch):
    """The factor scales the KD loss; the thetas move as with the hook."""
    for name in ('TRUNK', 'HEAD', 'WIDTH', 'BATCH'):
        monkeypatch.setattr(balancers, name, 2)
    args = Namespace(steps=600, device='cpu')
    trainings = [
        balancers.Training(dict(type='UncertaintyWeighting'), args)
        for _ in range(2)
    ]
    plain, large = (
        training.step(factor)
        for training, factor in zip(trainings, (1.0, 1000.0))
    )
    assert large['gor_raw_task'] == plain['gor_raw_task']
    assert large['gor_raw_kd'].item() == pytest.approx(
        1000 * plain['gor_raw_kd'].item()
    )
    # A rate of 60 / 600; the gradient of theta = 0 is 1 - L, at least -1.
    task, kd = large['gor_raw_task'].item(), large['gor_raw_kd'].item()
    thetas = trainings[1].weighting.theta().tolist()
    want = [-0.1 * max(1 - loss, -1) for loss in (task, kd)]
    assert thetas == pytest.approx(want, rel=1e-5)


def test_the_cost_is_the_mean_over_all_steps(monkeypatch, capsys):
    """If one step in ten takes 11 times as long, the mean doubles."""
    seconds = dict(Fixed=[1.0] * 10, Other=[1.0] * 9 + [11.0])
    monkeypatch.setattr(balancers, 'measure_costs', lambda *_: seconds)
    args = Namespace(batch=2, size=[32, 64], device='cpu')
    balancers.cost_table(args, None)
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert rows == ['| Fixed | 1000 | 1.00 |', '| Other | 2000 | 2.00 |']


@pytest.mark.slow
def test_each_balancer_weighs_the_steps_that_are_timed(tmp_path, monkeypatch):
    used = []
    weigh = FixedWeighting.weigh

    def noted(weighting, *args):
        weights, own = weigh(weighting, *args)
        used.append(weights[1].item())
        return weights, own

    monkeypatch.setattr(FixedWeighting, 'weigh', noted)
    monkeypatch.setattr(balancers, 'BALANCERS', CFGS)
    monkeypatch.setattr(balancers, 'WARM_UP', 0)
    register_all_modules()
    save_teachers(tmp_path)
    args = Namespace(batch=1, size=[64, 64], device='cpu', rounds=2)
    seconds = balancers.measure_costs(args, tmp_path)
    assert used == [1.0, 3.0] * 2
    assert [len(seconds[name]) for name in CFGS] == [2, 2]
    assert min(map(min, seconds.values())) > 0
