"""A training is killed, stopped and resumed, and ends as if it had not been.

The long form is benchmarks/faults/kill_training.py and stop_training.py.
"""

import os
import signal
from functools import partial

import pytest

from benchmarks.faults.kill_training import Reference, Writes
from benchmarks.faults.toy_training import (
    Scenes,
    differences,
    end_state,
    start,
    wait,
)
from mmgor.detectors.gor_mixin import GoRMixin

#: How it reads and saves -> the share of the writes at which it is killed.
WRITES = {
    'epochs, no workers': 0.6,  # of the third checkpoint, half is written
    'epochs, best': 0.73,  # an older best checkpoint is still there
}


def killed_in_a_write(scenes, work_dir, setup, last):
    Writes(last, 0.5).watch()
    scenes.train(work_dir, setup)


def stopped_in_an_epoch(scenes, work_dir, setup):
    """By a signal to itself, in the first of two iterations."""
    stock = GoRMixin.train_step

    def step(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return stock(self, *args, **kwargs)

    GoRMixin.train_step = step
    scenes.train(work_dir, setup, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize('setup', WRITES)
def test_the_end_is_that_of_an_undisturbed_training(tmp_path, setup):
    scenes = Scenes(tmp_path / 'scenes')
    reference = Reference(scenes, setup, tmp_path / 'reference')
    work_dir, log = tmp_path / 'run', tmp_path / 'log.txt'
    work_dir.mkdir()

    last = int(WRITES[setup] * reference.writes)
    kill = partial(killed_in_a_write, scenes, work_dir, setup, last)
    assert wait(start(kill, log)) == -signal.SIGKILL
    best = list(work_dir.glob('best_*.pth'))
    assert len(best) == (2 if setup == 'epochs, best' else 0)

    stop = partial(stopped_in_an_epoch, scenes, work_dir, setup)
    assert wait(start(stop, log)) == 128 + signal.SIGTERM
    named = (work_dir / 'last_checkpoint').read_text()
    assert named == str(work_dir / 'stopped.pth')
    assert 'SIGTERM: training stops after this iteration' in log.read_text()

    resume = partial(scenes.train, work_dir, setup, resume=True)
    assert wait(start(resume, log)) == 0
    assert differences(end_state(work_dir), reference.end) == []
    assert not (work_dir / 'stopped.pth').exists()
    assert not list(work_dir.glob('.*'))
