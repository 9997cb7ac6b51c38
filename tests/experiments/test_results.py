"""What a training left, what is recorded of it, and what is shown."""

import json
import re

import pytest

from experiments.outcome import read_outcome
from experiments.progress import Estimates, LogFollower, condense, duration
from experiments.records import append_record, read_records
from experiments.runs import build_runs
from experiments.training import train
from tests.support.experiments import FAKE_TRAIN, Bench, record


@pytest.mark.parametrize(
    'behaviour, status, reason',
    [
        ('good', 'done', ''),
        ('no box', 'done', 'no metric: no box passed the score threshold'),
        ('no ground truth', 'done', 'no metric: .* have no ground truth'),
        ('other metric', 'done', r"no metric: .* got \['coco/segm_mAP'\]"),
        ('crash', 'failed', r'exit status 1:\n(.*\n)*out of memory'),
        ('diverge', 'failed', 'epoch_3.pth: neck.weight is not finite'),
        ('no checkpoint', 'failed', r'no epoch_3.pth:\n'),
        ('no evaluation', 'failed', 'no evaluation after the last epoch'),
        ('half a line', 'failed', 'not readable: JSONDecodeError'),
        ('not weights', 'failed', 'not readable: '),
    ],
)
def test_outcomes(tmp_path, behaviour, status, reason):
    bench = Bench(tmp_path)
    bench.behave('float', behaviour)
    plan = bench.plan()
    run = bench.runs()['float/float/seed1']
    found = train(run, plan, FAKE_TRAIN)
    assert found.status == status
    assert re.match(reason, found.reason)
    if not found.reason:
        # Means over the last epoch, without the dropped step.
        assert (found.mAP, found.AP50) == (0.41, 0.6)
        assert (found.gor_w_task, found.gor_w_kd) == (0.75, 2.25)
    else:
        assert found.mAP is None and found.AP50 is None


def test_a_training_without_its_log_backend(tmp_path):
    outcome = read_outcome(tmp_path, 'epoch_1.pth')
    assert outcome.status == 'failed'
    assert 'expected LocalVisBackend among' in outcome.reason


def test_the_last_line_of_a_run_counts(tmp_path):
    file = tmp_path / 'results.jsonl'
    assert read_records(file) == {}
    append_record(file, record(status='skipped'))
    with file.open('a') as f:
        f.write('\n' + json.dumps(vars(record(seed=1, mAP=None))))  # no end
    append_record(file, record(reason='a\nb'))
    assert list(read_records(file).values()) == [
        record(reason='a\nb'),
        record(seed=1, mAP=None),
    ]


@pytest.mark.parametrize('line', ['{', '5', '{"arm": "a"}'])
def test_lines_that_are_not_records(tmp_path, line):
    file = tmp_path / 'results.jsonl'
    file.write_text(f'{json.dumps(vars(record()))}\n{line}\n')
    with pytest.raises(
        ValueError, match='line 2: expected a JSON object with'
    ):
        read_records(file)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, small_disk):
    file = tmp_path / 'results.jsonl'
    file.write_bytes(b'\n' * 65500)
    with pytest.raises(OSError):
        append_record(file, record())
    assert file.read_bytes() == b'\n' * 65500


def test_only_progress_and_warnings_are_shown():
    assert condense('Saving checkpoint at 3 epochs') is None
    usual = '11/21 10:00:00 - mmengine - WARNING - FileClient will be'
    assert condense(usual) is None
    line = 'Iter(train) [  50/90000]  lr: 1e-3  eta: 1 day, 0:01  loss: 2.5'
    assert condense(line) == 'iter [50/90000]  loss 2.5  eta 1 day, 0:01'
    line = 'Epoch(val) [1][50/72]    eta: 0:00:03  time: 0.1'
    assert condense(line) == 'evaluation [1][50/72]  eta 0:00:03'


def test_a_log_is_followed(tmp_path):
    log = tmp_path / 'train.log'
    follower = LogFollower(log)
    assert follower.read() == [] and not follower.exists
    log.write_text('m - WARNING - odd\nEpoch(train) [1][2/9] eta: 1 loss: 5')
    assert follower.read() == ['warning: odd']
    assert follower.progress == ''  # half a line
    with log.open('a') as file:
        file.write('.0\n')
    assert follower.read() == []
    assert follower.progress == 'epoch [1][2/9]  loss 5.0  eta 1'


def test_estimates_follow_the_most_alike_run(tmp_path):
    records = [
        record(wall_s=9e9),
        record(wall_s=120.0, seed=1),
        record(wall_s=30.0, arm='ptq', epochs=0),
        record(wall_s=9e9, status='failed', seed=3),
    ]
    estimates = Estimates(records)
    assert estimates.seconds(record(epochs=24)) == 240
    assert estimates.seconds(record(arm='new', epochs=3)) == 30
    assert estimates.seconds(record(bits='W2A2', epochs=3)) == 30
    assert estimates.seconds(record(arm='new', epochs=0)) == 30
    other = record(data='others')
    assert estimates.seconds(other) is None
    runs = build_runs(Bench(tmp_path).plan())[:2]
    assert estimates.left(dict.fromkeys(runs, 0.0), 2) == '30 s left'
    assert estimates.left({runs[0]: 20.0}, 1) == '10 s left'
    assert Estimates([]).left(dict.fromkeys(runs, 0.0), 1) == (
        '2 left, time not known yet'
    )


def test_durations():
    assert [duration(s) for s in (89.4, 90, 12665)] == [
        *('89 s', '2 min', '3 h 31 min')
    ]
