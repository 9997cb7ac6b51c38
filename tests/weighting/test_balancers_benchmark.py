"""benchmarks/balancers.py: the table of costs."""

from argparse import Namespace

from benchmarks import balancers


def test_a_step_that_measures_counts_with_its_share(monkeypatch, capsys):
    """One of ten that takes 11 times as long doubles the mean."""
    cfgs = {
        'Fixed': dict(type='FixedWeighting'),
        'Other': dict(type='FixedWeighting', kd_weight=0.5),
    }
    measured = [1.0, 11.0]
    times = iter([1.0, 1.0] * 3 + measured + [1.0, 1.0] * 6)
    monkeypatch.setattr(balancers, 'BALANCERS', cfgs)
    monkeypatch.setattr(balancers, 'timed', lambda *_: next(times))
    args = Namespace(
        steps=10, rounds=10, batch=2, width=2, trunk=1, head=1, device='cpu'
    )
    balancers.cost_table(args)
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert rows == ['| Fixed | 1000.00 | 1.00 |', '| Other | 2000.00 | 2.00 |']
