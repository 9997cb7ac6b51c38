"""tools/ledger.py, and what it records of code and machine."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import ledger
import pytest
import torch
from ledger_tools import FAKE_TRAIN, RUNS, write_weights

from mmgor.ledger import environment, processes, schedule

pytest_plugins = ['ledger_bench']


@pytest.fixture
def run(bench, monkeypatch):
    """The tool with faked trainings."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    handlers = [signal.getsignal(number) for number in numbers]
    defaults = schedule.Schedule.__init__.__defaults__
    monkeypatch.setattr(
        schedule.Schedule.__init__,
        '__defaults__',
        (*defaults[:-1], FAKE_TRAIN),
    )

    def main(*argv):
        bench.content['data'] = dict(cells=None)
        data = bench.folder / 'cells'
        with pytest.raises(ValueError, match='type --data'):
            bench.plan()
        file = str(bench.folder / 'plan.yaml')
        given = ['ledger.py', file, '--data', f'cells={data}', *argv]
        monkeypatch.setattr(sys, 'argv', given)
        return ledger.main()

    yield main
    for number, handler in zip(numbers, handlers):
        signal.signal(number, handler)


def test_a_log_file_gets_a_line_now_and_then(monkeypatch, capsys):
    """As a file, a pipe or a batch system shows it."""
    clock = iter((0, 5, 61, 120))
    faked = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(ledger, 'time', faked)
    terminal = ledger.Terminal()
    for line in 'a', 'b', 'c':
        terminal.status(line)
    assert capsys.readouterr().out == 'b\n'


def test_dry_run_lists_and_starts_nothing(bench, run, capsys):
    bench.content['seeds'] = [0]
    bench.content['workers'] = 2
    assert run('--dry-run') == 0
    name = environment.device()
    assert capsys.readouterr().out.splitlines() == [
        'cells/teacher/float/seed0: to be run, time not known',
        'cells/float/float/seed0: to be run, time not known',
        'cells/qat/W4/seed0: waits for cells/float/float/seed0, time not '
        'known',
        'cells/taught/W4/seed0: waits for cells/float/float/seed0, '
        'cells/teacher/float/seed0, time not known',
        f'0 of 4 ended; 4 left, time not known yet on {name}, 2 at a time',
    ]
    assert bench.calls() == []
    assert not (bench.folder / 'results.jsonl').exists()


def test_some_arms_then_the_rest(bench, run, capsys):
    bench.content['seeds'] = [0]
    assert run('--only', 'qat') == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(',')[0] for line in out] == [
        'cells/float/float/seed0: starts',
        '[1/2] cells/float/float/seed0: done',
        'cells/qat/W4/seed0: starts',
        '[2/2] cells/qat/W4/seed0: done',
        '2 of 2 runs done',
    ]
    assert bench.calls() == ['float/float/seed0', 'qat/W4/seed0']
    run('--dry-run', '--only', 'qat', '--bits', 'W4', '--seeds', '3')
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(':')[0] for line in out[:2]] == [
        'cells/float/float/seed3',
        'cells/qat/W4/seed3',
    ]
    run('--dry-run', '--only', 'teacher')
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'cells/teacher/float/seed0: to be run, \d+ s', out[0])
    assert out[2] == ('2 recorded runs are not among these and are left alone')
    assert run() == 0
    assert bench.calls() == [RUNS[0], RUNS[4]]


def test_failures_are_told_and_end_with_status_1(bench, run, capsys):
    bench.content['seeds'] = [0]
    bench.behave('teacher', 'crash')
    assert run() == 1
    out = capsys.readouterr().out.splitlines()
    assert 'teacher/float/seed0: failed, exit status 1:' in out[1]
    assert out[-2:] == [
        '2 of 4 runs done',
        'without a result: cells/teacher/float/seed0, cells/taught/W4/seed0. '
        f'Their reasons are in {bench.folder / "results.jsonl"}; to run one '
        'again, remove its line.',
    ]


def test_sigterm_ends_what_is_in_flight(bench, run, capsys):
    bench.content['seeds'] = [0]
    bench.behave('float', 'hang')
    bench.calls_file.touch()

    def end():
        while 'float/float' not in bench.calls_file.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    assert run() == 130
    thread.join()
    assert capsys.readouterr().out.splitlines()[-1] == (
        'cells/float/float/seed0: stopped, not recorded'
    )
    assert list(bench.records()) == ['teacher/float/seed0']


def test_a_second_signal_forgets_no_training(bench, run, monkeypatch):
    """It comes while the first of two is waited for."""
    monkeypatch.setattr(processes, '_PATIENCE_S', 1.0)
    bench.content.update(seeds=[0], workers=2)
    for arm in ('teacher', 'float'):
        bench.behave(arm, 'stubborn')
    bench.calls_file.touch()

    def end():
        while len(bench.calls_file.read_text().splitlines()) < 2:
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    started = trainings(monkeypatch)
    thread = threading.Thread(target=end)
    thread.start()
    assert run() == 130
    thread.join()
    assert len(started) == 2
    assert all(t.process.poll() == -signal.SIGKILL for t in started)
    assert bench.records() == {}


def test_a_signal_in_the_midst_of_starting_forgets_no_training(
    bench, run, monkeypatch
):
    bench.content['seeds'] = [0]
    bench.behave('teacher', 'hang')
    started = trainings(
        monkeypatch, then=lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert run() == 130
    assert [t.process.poll() for t in started] == [-signal.SIGTERM]


def trainings(monkeypatch, then=lambda: None):
    """List that takes every training, before the schedule knows of it."""
    started = []

    class Noted(processes.Training):
        def __init__(self, *args):
            super().__init__(*args)
            started.append(self)
            then()

    monkeypatch.setattr(schedule, 'Training', Noted)
    return started


def test_students_of_a_teacher_trained_again_are_told(bench, run):
    bench.content['seeds'] = [0]
    assert run() == 0
    results = bench.folder / 'results.jsonl'
    lines = results.read_text().splitlines(True)
    results.write_text(''.join(s for s in lines if '"teacher"' not in s))
    write_weights(bench.folder / 'good.pth', 3.0)
    for argv in ([], [], ['--dry-run']):
        with pytest.raises(ValueError, match='Remove the lines of cells/taug'):
            run(*argv)
    lines = results.read_text().splitlines(True)
    results.write_text(''.join(s for s in lines if '"taught"' not in s))
    assert run() == 0


def test_results_without_weights_start_nothing(bench, run):
    bench.content['seeds'] = [0]
    run('--only', 'float')
    bench.calls()
    (bench.folder / 'results/cells/float/float/seed0/epoch_3.pth').unlink()
    for argv in ([], ['--dry-run']):
        with pytest.raises(FileNotFoundError, match='is recorded as done'):
            run(*argv)
    assert bench.calls() == []


def test_a_changed_config_starts_nothing(bench, run):
    bench.content['seeds'] = [0]
    run('--only', 'float')
    bench.calls()
    bench.content['arms']['float']['epochs'] = 7
    for argv in ([], ['--dry-run']):
        with pytest.raises(ValueError, match=r"Rename \['float'\] in"):
            run(*argv)
    assert bench.calls() == []


def test_paths_need_a_name(bench, run, capsys):
    with pytest.raises(SystemExit):
        run('--weights', 'zoo.pth')
    assert "expected NAME=PATH, got 'zoo.pth'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run('--data', 'cells=elsewhere')
    message = "--data expected each name once, got ['cells', 'cells']"
    assert message in capsys.readouterr().err


def git(folder, *command):
    subprocess.run(
        ['git', '-C', folder, '-c', 'user.name=x', '-c', 'user.email=x']
        + list(command),
        check=True,
        capture_output=True,
    )


def test_commit(tmp_path):
    assert environment.commit(tmp_path) == 'unknown'
    git(tmp_path, 'init')
    (tmp_path / 'a').touch()
    git(tmp_path, 'add', 'a')
    git(tmp_path, 'commit', '-m', 'a')
    clean = environment.commit(tmp_path)
    assert re.fullmatch('[0-9a-f]{10}', clean)
    (tmp_path / 'b').touch()
    assert environment.commit(tmp_path) == f'{clean}-dirty'


def test_device_has_a_name_but_no_host(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    info = tmp_path / 'cpuinfo'
    info.write_text('processor\t: 0\nmodel name\t: Abacus 2000\n')
    monkeypatch.setattr(
        torch.backends.cpu, 'get_cpu_capability', lambda: 'BEADS'
    )
    assert environment.device(info) == 'Abacus 2000, BEADS'
    assert os.uname().nodename != environment.device(tmp_path / 'none') != ''
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: f'GPU {i}')
    assert environment.device(info) == 'GPU 0'
