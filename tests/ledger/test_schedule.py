"""Running a plan: in order, resuming, failing, several at a time."""

import re

import pytest
from ledger_tools import RUNS, states

from mmgor.ledger.records import locked, read_records
from mmgor.ledger.runs import build_runs
from mmgor.ledger.schedule import check_files, select_runs

pytest_plugins = ['ledger_bench']
EMPTY = ':\n(the log is empty)'


def test_a_plan_from_start_to_end(bench):
    """The fake training fails where a file that it needs is not there."""
    bench.train()
    assert bench.calls() == RUNS
    records = bench.records()
    assert {record.status for record in records.values()} == {'done'}
    record = records['taught/W4/seed1']
    assert (record.mAP, record.AP50, record.epochs) == (0.41, 0.6, 3)
    # Means of the last epoch, without the step that was dropped.
    assert (record.gor_w_task, record.gor_w_kd) == (0.75, 2.25)
    assert record.config_hash == bench.runs()['taught/W4/seed1'].hash
    assert record.wall_s > 0 and record.reason == ''
    assert len(bench.lines) == 14  # each starts and ends
    assert bench.lines[0] == 'cells/teacher/float/seed0: starts'
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
    assert bench.calls() == [name for name in RUNS if name.endswith('1')]
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
        ('no file of weights', 'ValueError: '),
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


def test_results_without_the_weights_they_came_from(bench):
    bench.content['seeds'] = [0]
    bench.train()
    bench.content['seeds'] = [0, 1]
    plan = bench.plan()
    runs, records = build_runs(plan), read_records(plan.results)
    check_files(runs, records, plan.runs_folder)
    file = plan.runs_folder / 'cells/teacher/float/seed0/epoch_3.pth'
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f'seed1 needs {file} of a'):
        check_files(runs, records, plan.runs_folder)


def test_only_some_arms_with_what_they_need(bench):
    runs = build_runs(bench.plan())
    names = [run.key[1:] for run in select_runs(runs, ['qat'])]
    assert names == [
        ('float', 'float', 0),
        ('float', 'float', 1),
        ('qat', 'W4', 0),
        ('qat', 'W4', 1),
    ]
    assert select_runs(runs) == runs
    assert select_runs(runs, ['qat'], ['W4']) == select_runs(runs, ['qat'])
    floats = select_runs(runs, bits=['float'])
    assert {run.key[1] for run in floats} == {'float', 'teacher'}
    with pytest.raises(ValueError, match=r"no bits \['W3'\] in the plan"):
        select_runs(runs, None, ['W3'])
    with pytest.raises(ValueError, match=r"'qat'\] has bits .* have \['W4'\]"):
        select_runs(runs, ['qat'], ['float'])
    with pytest.raises(ValueError, match=r"\['float'\] has bits among"):
        select_runs(runs, ['float'], ['W4'])
    with pytest.raises(ValueError, match=r"no arm \['quat'\] in the plan"):
        select_runs(runs, ['quat'])


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
            if 'qat' in line and 'done' in line:
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
