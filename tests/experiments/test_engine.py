"""Runs on Ray with faked trainings: order, records, failures, resume."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import ray

from experiments import REPOSITORY, __main__, engine
from experiments.engine import Engine, check_address, locked
from experiments.runs import build_runs
from tests.support.experiments import FAKE_TRAIN, RUNS, Bench


@pytest.fixture(scope='module')
def cluster():
    ray.init(
        address='local',
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def bench(cluster, tmp_path):
    return Bench(tmp_path)


@pytest.mark.slow
def test_each_run_after_those_it_needs(bench):
    bench.train()
    assert bench.states() == dict.fromkeys(RUNS, 'done')
    records, runs = bench.records(), bench.runs()
    taught = records['taught/W4/seed1']
    assert taught.config_hash == runs['taught/W4/seed1'].hash
    assert sorted(taught.parents) == [
        'cells/float/float/seed1',
        'cells/teacher/float/seed0',
    ]
    assert (taught.mAP, taught.gor_w_kd) == (0.41, 2.25)
    assert list(records).index('float/float/seed1') < list(records).index(
        'qat/W4/seed1'
    )
    # A line when a run starts, its warnings and progress, a line at its end.
    name = 'cells/taught/W4/seed1'
    folder = bench.runs_folder / name
    lines = [line for line in bench.lines if name in line]
    assert lines[0] == (
        f'{name} starts: python tools/train.py {folder}/config.py > '
        f'{folder}/train.log'
    )
    assert lines[1] == f'{name}  warning: a weight collapsed'
    progress = lines[2:-1]  # one or more: a busy machine is looked at again
    assert progress and all(
        line.startswith(f'{name}  epoch [3][20/37]  loss 1.2  eta 0:01')
        for line in progress
    )
    assert f'/7] {name}: done, mAP 41.0, AP50 60.0, ' in lines[-1]
    # What is recorded never runs again; what is removed does.
    bench.calls()
    bench.train()
    assert bench.calls() == set() and bench.lines == []
    kept = bench.results.read_text().splitlines(keepends=True)
    bench.results.write_text(''.join(kept[:-1]))
    bench.train()
    assert len(bench.calls()) == 1


def test_failures_skip_what_needs_them(bench):
    bench.content['seeds'] = [0]
    bench.behave('teacher', 'crash')
    for _ in range(2):  # skipped once more, which is no news
        bench.train()
        assert bench.states() == {
            'teacher/float/seed0': 'failed',
            'float/float/seed0': 'done',
            'qat/W4/seed0': 'done',
            'taught/W4/seed0': 'skipped',
        }
        assert len(bench.results.read_text().splitlines()) == 4
    records = bench.records()
    assert 'out of memory' in records['teacher/float/seed0'].reason
    reason = 'needs cells/teacher/float/seed0 (failed)'
    assert records['taught/W4/seed0'].reason == reason


def test_the_command(bench, monkeypatch, capsys):
    """Lists, trains, goes on, refuses a change; status 1 for failures."""
    monkeypatch.setattr(Engine.__init__, '__defaults__', (FAKE_TRAIN, 30.0))
    bench.content.update(seeds=[0], data=dict(cells=None))
    bench.behave('teacher', 'crash')

    def run(*argv):
        data = f'cells={bench.folder / "cells"}'
        code = __main__.main(
            ['run', str(bench.write()), '--data', data]
            + ['--work-dir', str(bench.folder), *argv]
        )
        return code, capsys.readouterr().out.splitlines()

    code, lines = run('--dry-run')
    assert code == 0 and not bench.results.exists()
    assert lines[1].startswith('  teacher: 3 epochs, {')
    assert lines[-2:] == [
        'cells/taught/W4/seed0: waits for cells/float/float/seed0, '
        'cells/teacher/float/seed0, time not known',
        '0 of 4 ended; 4 left, time not known yet, one run at a time',
    ]
    code, lines = run('--arms', 'qat')
    assert code == 0 and lines[-1] == '2 of 2 runs done'
    code, lines = run()
    assert code == 1 and lines[-2] == '2 of 4 runs done'
    assert lines[-1].startswith('without a result: cells/teacher/float/seed0,')
    bench.content['arms']['qat']['epochs'] = 5
    with pytest.raises(ValueError, match='it with config_hash'):
        run('--dry-run')


def test_one_gpu_per_run(tmp_path, monkeypatch):
    """Where the cluster has any; as many runs at a time as it has."""
    asked = []

    class FakeRay:
        put = staticmethod(lambda value: value)

        @staticmethod
        def remote(**options):
            asked.append(options)
            return lambda function: FakeTask()

    class FakeTask:
        def options(self, name):
            return self

        def remote(self, run, *_):
            return run.name

    plan = Bench(tmp_path).plan()
    monkeypatch.setattr(engine, 'ray', FakeRay)
    for resources, gpus, at_a_time in (
        (dict(CPU=64.0, GPU=8.0), 1, 8),
        (dict(CPU=4.0, GPU=8.0), 1, 4),
        (dict(CPU=4.0), 0, 4),
    ):
        FakeRay.cluster_resources = staticmethod(lambda facts=resources: facts)
        found = Engine(plan, build_runs(plan), {}, print)
        assert len(found._submit()) == len(RUNS)
        assert asked.pop() == dict(num_cpus=1, num_gpus=gpus, max_retries=1)
        assert found.at_a_time == at_a_time


def test_an_address_without_a_cluster_is_refused_at_once():
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = f'127.0.0.1:{server.getsockname()[1]}'
        for form in (address, f'ray://{address}', 'local', 'auto'):
            check_address(form)
    for form in (address, f'ray://{address}'):
        with pytest.raises(ConnectionError, match=f'RAY_ADDRESS={form}, got'):
            check_address(form)


def test_results_are_one_start_s(tmp_path):
    results = tmp_path / 'deep' / 'plan.jsonl'
    with (
        locked(results),
        pytest.raises(RuntimeError, match='in use by another start'),
        locked(results),
    ):
        pass
    with locked(results):
        pass


def processes_of(bench):
    """Processes that have the hanging run's config as an argument."""
    config = str(bench.runs_folder / 'cells/qat/W4/seed0/config.py')
    found = []
    for entry in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{entry}/cmdline') as file:
                if config in file.read().split('\0'):
                    found.append(int(entry))
        except OSError:  # has ended
            continue
    return found


def wait_for(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='reads /proc')
@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGKILL'])
def test_being_killed_loses_the_runs_in_flight_only(tmp_path, request, name):
    bench = Bench(tmp_path)
    bench.content['seeds'] = [0]
    bench.behave('qat', 'hang')
    script = (
        'import sys; from experiments import __main__; '
        'from experiments.engine import Engine; '
        f'Engine.__init__.__defaults__ = ({FAKE_TRAIN!r}, 30.0); '
        'sys.exit(__main__.main(sys.argv[1:]))'
    )
    command = ['run', str(bench.write()), '--work-dir', str(bench.folder)]

    def start():
        process = subprocess.Popen(
            [sys.executable, '-c', script, *command],
            env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
            stdout=subprocess.DEVNULL,
        )
        request.addfinalizer(process.kill)
        return process

    process = start()
    wait_for(lambda: processes_of(bench) and len(bench.states()) == 3)
    process.send_signal(getattr(signal, name))
    code = process.wait(60)
    assert code == (-signal.SIGKILL if name == 'SIGKILL' else 130)
    wait_for(lambda: not processes_of(bench))
    assert 'qat/W4/seed0' not in bench.states()
    assert set(bench.states().values()) == {'done'}
    if name != 'SIGKILL':  # the same after each, which takes a while
        return
    bench.calls()
    bench.behave('qat', 'good')
    bench.write()
    assert start().wait(240) == 0
    assert bench.calls() == {'qat/W4/seed0'}
    assert (
        set(bench.states().values()) == {'done'} and len(bench.states()) == 4
    )
