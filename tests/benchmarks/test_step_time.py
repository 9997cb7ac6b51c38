"""benchmarks/step_time.py: every arm and every teacher is timed."""

import argparse

import pytest
import step_time
from mmdet.utils import register_all_modules


@pytest.mark.slow
def test_every_arm_and_teacher_is_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step_time, 'WARM_UP', 0)
    monkeypatch.setattr(step_time, 'COMPILED_WARM_UP', 0)
    args = argparse.Namespace(
        batch=1, size=[64, 64], device='cpu', rounds=2, arms=step_time.ARMS
    )
    register_all_modules()
    step_time.save_teachers(tmp_path)
    seconds = step_time.measure_time(args, tmp_path)
    stock = {f'{name}_stock' for name in step_time.TEACHERS}
    assert set(seconds) == {*step_time.ARMS, *step_time.TEACHERS, *stock}
    assert all(len(times) == 2 for times in seconds.values())
    assert all(time > 0 for times in seconds.values() for time in times)
    step_time.report(seconds, dict.fromkeys(step_time.ARMS, 1.0))
    assert 'compiled GoR step with AMP / floor' in capsys.readouterr().out
