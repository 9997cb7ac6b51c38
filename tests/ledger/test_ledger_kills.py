"""Being killed at any point, and what the next start makes of it."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from ledger_tools import RUNS, states
from mmengine.config import Config

from mmgor.ledger.records import locked
from mmgor.ledger.runs import build_runs
from mmgor.ledger.schedule import Schedule, check_files

pytest_plugins = ['ledger_bench']


def start(bench):
    """Run the plan in a process of its own until ``hang`` is reached."""

    def train():
        signal.signal(signal.SIGTERM, lambda *_: exec('raise SystemExit'))
        bench.train()

    context = multiprocessing.get_context('fork')
    process = context.Process(target=train)
    process.start()
    deadline = time.monotonic() + 60
    while 'qat' not in bench.calls_file.read_text():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.05)
    return process


def hanging(bench):
    """Process of the run that hangs, from the list of processes."""
    config = str(bench.folder / 'results/cells/qat/W4/seed0/config.py')
    found = []
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                with open(f'/proc/{entry}/cmdline') as file:
                    if config in file.read().split('\0'):
                        found.append(int(entry))
            except OSError:  # has ended
                continue
    return found


def wait_until_free(results):
    """A killed process leaves the list before its files are closed."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with locked(results):
                return
        except RuntimeError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.skipif(
    not os.path.isdir('/proc/self'), reason='looks for a process in /proc'
)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_being_killed_loses_what_is_in_flight_only(bench, number):
    bench.calls_file.touch()
    bench.content['seeds'] = [0]
    bench.behave('qat', 'hang')
    process = start(bench)
    os.kill(process.pid, number)
    process.join(30)
    assert not process.is_alive()
    assert states(bench) == dict.fromkeys(RUNS[:2], 'done')
    orphans = hanging(bench)
    if number == signal.SIGTERM:  # as Ctrl-C: trainings end with it
        assert orphans == []
    else:  # the orphan still has the lock
        with pytest.raises(RuntimeError, match='outlived one that was kill'):
            bench.train()
        os.kill(orphans[0], signal.SIGKILL)
        wait_until_free(bench.folder / 'results.jsonl')
    bench.calls()
    bench.behave('qat', 'good')
    bench.train()
    assert bench.calls() == ['qat/W4/seed0', 'taught/W4/seed0']
    assert set(states(bench).values()) == {'done'}


def test_leftovers_of_a_run_are_cleared_but_nothing_else(bench):
    bench.content['seeds'] = [0]
    folder = bench.folder / 'results/cells/float/float/seed0'
    folder.mkdir(parents=True)
    (folder / 'thesis.txt').touch()
    plan = bench.plan()
    with pytest.raises(FileExistsError, match='is no run of a ledger'):
        check_files(build_runs(plan), {}, plan.runs_folder)
    bench.train()  # as if it had come after that check
    record = bench.records()['float/float/seed0']
    assert record.status == 'skipped' and 'is no run of' in record.reason
    assert bench.calls() == ['teacher/float/seed0']
    assert (folder / 'thesis.txt').exists()
    (folder / 'hashed.json').write_text('{}')
    (folder / 'vis_data').mkdir()
    bench.train()
    assert not (folder / 'thesis.txt').exists()
    stored = json.loads((folder / 'hashed.json').read_text())
    assert stored == bench.runs()['float/float/seed0'].hashed


class Killed(BaseException):
    """Stands for a kill at this point."""


@pytest.mark.parametrize(
    'owner, name, number',
    [(Config, 'dump', 1), (Path, 'write_text', 1), (Path, 'unlink', 2)],
    ids=['config.py', 'hashed.json', 'clearing'],
)
def test_a_kill_while_a_run_starts(bench, monkeypatch, owner, name, number):
    """The next start goes on, wherever the last one was stopped."""
    bench.content['seeds'] = [0]
    folder = bench.folder / 'results/cells/float/float/seed0'
    if name == 'unlink':
        folder.mkdir(parents=True)
        (folder / 'hashed.json').touch()
        (folder / 'a.log').touch()
    bench.content['arms'] = dict(float=bench.content['arms']['float'])
    bench.content['teachers'] = {}
    plan = bench.plan()
    works, left = getattr(owner, name), iter(range(1, number))

    def kill(*args, **kwargs):
        if next(left, None) is None:
            raise Killed
        return works(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, kill)
        with locked(plan.results) as lock:
            Schedule(plan, build_runs(plan), {}, lock, print).run()
    assert folder.exists()
    bench.train()
    assert states(bench) == {'float/float/seed0': 'done'}
