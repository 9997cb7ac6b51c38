"""benchmarks/balancers.py: the tables of shares and costs."""

from argparse import Namespace

import balancers
from mmdet.utils import register_all_modules
from step_time import save_teachers

from mmgor.weighting import FixedWeighting

CFGS = {
    'Fixed': dict(type='FixedWeighting'),
    'Other': dict(type='FixedWeighting', kd_weight=3.0),
}


def test_a_step_that_measures_counts_with_its_share(monkeypatch, capsys):
    """One of ten that takes 11 times as long doubles the mean."""
    seconds = dict(Fixed=[1.0] * 10, Other=[1.0] * 9 + [11.0])
    monkeypatch.setattr(balancers, 'measure_costs', lambda *_: seconds)
    args = Namespace(batch=2, size=[32, 64], device='cpu')
    balancers.cost_table(args, None)
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert rows == ['| Fixed | 1000 | 1.00 |', '| Other | 2000 | 2.00 |']


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
