"""Running a plan: resuming, failing, waiting, being killed."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from hashlib import sha256
from pathlib import Path

import pytest
from mmengine.config import Config

from mmgor.ledger.changes import check_parents_same, check_unchanged
from mmgor.ledger.records import locked, read_records
from mmgor.ledger.runs import build_runs
from mmgor.ledger.schedule import (
    Schedule,
    check_parents_here,
    select_runs,
)

pytest_plugins = ['ledger_bench']
ALL = [
    'teacher/float/seed0',
    'float/float/seed0',
    'float/float/seed1',
    'qat/W4/seed0',
    'taught/W4/seed0',
    'qat/W4/seed1',
    'taught/W4/seed1',
]

EMPTY = ':\n(the log is empty)'


def states(bench):
    return {name: record.status for name, record in bench.records().items()}


def test_a_plan_from_start_to_end(bench):
    """The fake training fails where a file that it needs is not there."""
    bench.train()
    assert bench.calls() == ALL
    records = bench.records()
    assert {record.status for record in records.values()} == {'done'}
    record = records['taught/W4/seed1']
    assert (record.mAP, record.AP50, record.epochs) == (0.41, 0.6, 3)
    # Means of the last epoch, without the step that was dropped.
    assert (record.gor_w_task, record.gor_w_kd) == (0.75, 2.25)
    assert record.config_hash == bench.runs()['taught/W4/seed1'].hash
    assert record.wall_s > 0 and record.reason == ''
    assert len(bench.lines) == 7
    assert re.fullmatch(
        r'\[7/7\] cells/taught/W4/seed1: done, mAP 41\.0, AP50 60\.0, \d+ s; '
        '0 s left',
        bench.lines[-1],
    )


def test_what_is_done_is_never_run_again(bench):
    bench.content['seeds'] = [0]
    bench.train()
    bench.calls()
    before = (bench.folder / 'results.jsonl').read_text()
    bench.train()
    assert bench.calls() == [] and bench.lines == []
    bench.content['seeds'] = [0, 1]
    bench.train()
    assert bench.calls() == [name for name in ALL if name.endswith('1')]
    assert (bench.folder / 'results.jsonl').read_text().startswith(before)


@pytest.mark.parametrize(
    'behaviour, reason',
    [
        ('crash', 'exit status 1:\nfirst line\nout of memory'),
        ('diverge', 'epoch_3.pth: neck.weight is not finite'),
        (
            'other metric',
            "expected the metric coco/bbox_mAP, got ['cells/bbox_mAP']",
        ),
        ('no evaluation', f'no evaluation after the last epoch{EMPTY}'),
        ('no labels', 'mAP -1.0, AP50 0.6'),
        ('no checkpoint', f'no epoch_3.pth{EMPTY}'),
    ],
)
def test_a_failed_arm_stops_no_other(bench, behaviour, reason):
    bench.content['seeds'] = [0]
    bench.behave('teacher', behaviour)
    bench.train()
    records = bench.records()
    assert records['teacher/float/seed0'].status == 'failed'
    assert records['teacher/float/seed0'].reason == reason
    assert records['teacher/float/seed0'].mAP is None
    assert records['qat/W4/seed0'].status == 'done'
    skipped = records['taught/W4/seed0']
    assert (skipped.status, skipped.wall_s) == ('skipped', None)
    assert skipped.reason == 'needs cells/teacher/float/seed0 (failed)'


@pytest.mark.parametrize(
    'behaviour, error',
    [
        ('half a line', 'JSONDecodeError: '),
        ('no file of weights', 'UnpicklingError: '),
    ],
)
def test_what_cannot_be_read_stops_no_other(bench, behaviour, error):
    bench.content['seeds'] = [0]
    bench.behave('teacher', behaviour)
    bench.train()
    record = bench.records()['teacher/float/seed0']
    assert record.status == 'failed'
    assert record.reason.startswith(f'not readable: {error}')
    assert bench.records()['qat/W4/seed0'].status == 'done'


def test_finding_nothing_is_a_map_of_zero(bench):
    bench.behave('qat', 'no box')
    bench.train()
    record = bench.records()['qat/W4/seed0']
    assert (record.status, record.mAP, record.AP50) == ('done', 0.0, 0.0)
    assert record.reason == 'no box passed the score threshold: mAP 0'


def test_failing_passes_on(bench):
    bench.content['seeds'] = [0]
    bench.content['arms']['taught']['start'] = 'qat'
    bench.behave('float', 'crash')
    bench.train()
    reason = bench.records()['taught/W4/seed0'].reason
    assert reason == 'needs cells/qat/W4/seed0 (skipped)'


def test_a_failed_arm_again(bench):
    """Only after its line was removed; then also what it had stopped."""
    bench.content['seeds'] = [0]
    bench.behave('float', 'crash')
    bench.train()
    bench.calls()
    results = bench.folder / 'results.jsonl'
    before = results.read_text()
    bench.train()
    assert bench.calls() == [] and results.read_text() == before
    kept = [s for s in before.splitlines(True) if '"failed"' not in s]
    results.write_text(''.join(kept))
    del bench.content['arms']['float']['options']
    bench.train()
    assert bench.calls() == [
        'float/float/seed0',
        'qat/W4/seed0',
        'taught/W4/seed0',
    ]
    assert set(states(bench).values()) == {'done'}


def test_a_changed_config_is_refused(bench):
    bench.train()
    bench.content['arms']['qat']['options'] = {
        'model.backbone.quant.a_bits': 3,
        'model.backbone.quant.w_bits': 2,
    }
    results = bench.folder / 'results.jsonl'
    plan = bench.plan()
    records = read_records(results)
    with pytest.raises(ValueError) as caught:
        check_unchanged(plan, records)
    old, new = bench.records(), bench.runs()
    assert str(caught.value) == (
        f'cells/qat/W4/seed0: {results} has it with config_hash '
        f'{old["qat/W4/seed0"].config_hash}, the plan now gives '
        f'{new["qat/W4/seed0"].hash}.\n'
        '  config.model.backbone.quant.a_bits: not set -> 3\n'
        '  config.model.backbone.quant.w_bits: 4 -> 2\n'
        '1 more changed: cells/qat/W4/seed1\n'
        "Rename the arm 'qat' in the plan to run it beside the old one, or "
        f'remove its lines from {results} to run it again in its place.'
    )
    shutil.rmtree(bench.folder / 'results')
    with pytest.raises(ValueError, match='what changed is not known here'):
        check_unchanged(plan, records)
    check_unchanged(plan, records, ['taught'])


def test_seeds_that_the_plan_no_longer_has_count(bench):
    """Else the report would take two configs for seeds of one arm."""
    bench.train()
    bench.content['seeds'] = [2]
    records = bench.records_by_key()
    check_unchanged(bench.plan(), records)
    bench.content['arms']['qat']['options'] = {
        'model.backbone.quant.a_bits': 3
    }
    with pytest.raises(ValueError, match=r'^cells/qat/W4/seed0: .*has it'):
        check_unchanged(bench.plan(), records)


def test_a_changed_teacher_changes_its_students(bench):
    bench.train()
    bench.behave('teacher', 'other')
    with pytest.raises(ValueError, match='not set -> "other"') as e:
        check_unchanged(bench.plan(), bench.records_by_key())
    assert '2 more changed: cells/taught/W4/seed0, cells/taught/W4/seed1' in (
        str(e.value)
    )


def test_a_parent_trained_again_has_stale_students(bench):
    """Under the same config: its hash does not tell, its weights do."""
    bench.content['seeds'] = [0]
    bench.train()
    plan = bench.plan()
    records, folder = bench.records_by_key(), plan.runs_folder
    check_parents_same(build_runs(plan), records, folder)
    file = folder / 'cells/float/float/seed0/epoch_3.pth'
    shutil.copy(bench.folder / 'diverged.pth', file)
    old, new = (
        sha256((bench.folder / name).read_bytes()).hexdigest()[:12]
        for name in ('good.pth', 'diverged.pth')
    )
    with pytest.raises(ValueError) as caught:
        check_parents_same(build_runs(plan), records, folder)
    assert str(caught.value) == (
        f'cells/qat/W4/seed0 is recorded with the weights {old} of '
        f'cells/float/float/seed0, which now has {new}. Remove the lines of '
        'cells/qat/W4/seed0, cells/taught/W4/seed0 from the results to run '
        'them again, or put the old epoch_3.pth back.'
    )
    # Not here: trained elsewhere.
    shutil.rmtree(folder / 'cells/qat')
    shutil.rmtree(folder / 'cells/taught')
    check_parents_same(build_runs(plan), records, folder)


def test_results_without_the_weights_they_came_from(bench):
    bench.content['seeds'] = [0]
    bench.train()
    bench.content['seeds'] = [0, 1]
    plan = bench.plan()
    runs, records = build_runs(plan), read_records(plan.results)
    check_parents_here(runs, records, plan.runs_folder)
    file = plan.runs_folder / 'cells/teacher/float/seed0/epoch_3.pth'
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f'seed1 needs {file} of a'):
        check_parents_here(runs, records, plan.runs_folder)


def test_only_some_arms_with_what_they_need(bench):
    runs = build_runs(bench.plan())
    names = [run.key[1:] for run in select_runs(runs, ['qat'])]
    assert names == [
        ('float', 'float', 0),
        ('float', 'float', 1),
        ('qat', 'W4', 0),
        ('qat', 'W4', 1),
    ]
    assert select_runs(runs, None) == runs
    with pytest.raises(ValueError, match=r"no arm \['quat'\] in the plan"):
        select_runs(runs, ['quat'])


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
    assert states(bench) == dict.fromkeys(ALL[:2], 'done')
    orphans = hanging(bench)
    if number == signal.SIGTERM:  # as Ctrl-C: trainings end with it
        assert orphans == []
    else:  # the orphan still has the lock
        with pytest.raises(RuntimeError, match='outlived one that was kill'):
            bench.train()
        os.kill(orphans[0], signal.SIGKILL)
        while hanging(bench):
            time.sleep(0.05)
    bench.calls()
    bench.behave('qat', 'good')
    bench.train()
    assert bench.calls() == ['qat/W4/seed0', 'taught/W4/seed0']
    assert set(states(bench).values()) == {'done'}


def test_two_ledgers_at_a_time_are_refused(bench):
    results = bench.folder / 'results.jsonl'
    with locked(results), pytest.raises(RuntimeError, match='is in use by'):
        bench.train()


def test_several_at_a_time(bench):
    """Two workers: the second starts while the first hangs."""
    bench.content.update(seeds=[0], workers=2)
    bench.content['teachers'] = {}
    del bench.content['arms']['taught']
    bench.content['arms']['slow'] = dict(
        bench.content['arms']['float'], options={'model.behaviour': 'hang'}
    )
    bench.calls_file.touch()
    with locked(bench.folder / 'results.jsonl') as lock:
        schedule = bench.schedule(lock)
        schedule.status = lambda line: None
        seen = []

        def tell(line):
            seen.append(line)
            if 'qat' in line:
                raise KeyboardInterrupt

        schedule.tell = tell
        with pytest.raises(KeyboardInterrupt):
            schedule.run()
    assert states(bench) == {
        'float/float/seed0': 'done',
        'qat/W4/seed0': 'done',
    }
    assert seen[-1] == 'cells/slow/float/seed0: stopped, not recorded'
    assert schedule.running[next(iter(schedule.running))][0].process.poll()


def test_leftovers_of_a_run_are_cleared_but_nothing_else(bench):
    bench.content['seeds'] = [0]
    folder = bench.folder / 'results/cells/float/float/seed0'
    folder.mkdir(parents=True)
    (folder / 'thesis.txt').touch()
    with pytest.raises(FileExistsError, match='is no run of a ledger'):
        bench.train()
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
