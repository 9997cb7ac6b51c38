"""Results files."""

import json
import os

import pytest

from mmgor.ledger.records import Record, append_record, locked, read_records


def record(**changes):
    values = dict(
        arm='qat',
        bits='W4A4',
        seed=0,
        data='cells',
        epochs=12,
        mAP=0.5,
        AP50=0.75,
        config_hash='0123456789ab',
        parents={'cells/float/float/seed0': 'ba9876543210'},
        commit='abc',
        device='a processor',
        wall_s=60.0,
        gor_w_task=None,
        gor_w_kd=None,
        status='done',
        reason='',
    )
    return Record(**{**values, **changes})


def line_of(**changes):
    return json.dumps(vars(record(**changes)))


def test_a_line_each_and_the_last_one_counts(tmp_path):
    file = tmp_path / 'deep' / 'results.jsonl'
    first, second = record(status='skipped'), record(reason='a\nb')
    with locked(file):
        append_record(file, first)
        append_record(file, record(seed=1))
        append_record(file, second)
    lines = file.read_text().splitlines()
    assert [json.loads(line)['seed'] for line in lines] == [0, 1, 0]
    assert list(json.loads(lines[0])) == [
        'arm',
        'bits',
        'seed',
        'data',
        'epochs',
        'mAP',
        'AP50',
        'config_hash',
        'parents',
        'commit',
        'device',
        'wall_s',
        'gor_w_task',
        'gor_w_kd',
        'status',
        'reason',
    ]
    records = read_records(file)
    assert records == {second.key: second, record(seed=1).key: record(seed=1)}
    assert second.key == ('cells', 'qat', 'W4A4', 0)
    assert second.name == 'cells/qat/W4A4/seed0'


def test_no_results_yet(tmp_path):
    assert read_records(tmp_path / 'results.jsonl') == {}


@pytest.mark.parametrize(
    'line, message',
    [
        (
            '{"arm": "qat", "b',
            'line 2: expected a JSON object .* or remove it',
        ),
        ('{"arm": "qat"}', r"line 2: expected the keys \['AP50', 'arm'"),
        ('[]', r'line 2: expected the keys .* got \[\]'),
        (line_of(mAP=None), 'line 2: expected mAP to be a finite number, got'),
        (line_of(AP50='0.5'), "AP50 to be a finite number, got '0.5'"),
        (line_of(gor_w_kd=float('nan')), 'gor_w_kd to be .* or null, got nan'),
        (line_of(wall_s=None), 'wall_s to be a finite number, got None'),
        (line_of(mAP=39.1), 'expected mAP between 0 and 1, got 39.1'),
        (line_of(mAP=True), 'mAP to be a finite number, got True'),
        (line_of(status='ok'), "expected status 'done', 'failed' or 'skip"),
        (line_of(seed='1'), "seed: expected a whole number .* got '1'"),
        (line_of(seed=-1), 'seed: expected a whole number of at least 0'),
        (line_of(epochs=None), 'epochs: expected a whole number'),
        (line_of(arm='../x'), r"arm '\.\./x': expected a name of letters"),
        (line_of(bits=4), 'bits 4: expected a name of letters'),
        (line_of(reason=None), 'expected a text as reason, got None'),
        (line_of(commit=None), 'expected a text as commit, got None'),
        (line_of(parents=None), 'expected parents as name: hash, got None'),
        (line_of(parents={'a': 1}), 'expected parents as name: hash'),
        ('{"arm": "\xff"}', "line 2: expected a JSON object .*can't decode"),
    ],
)
def test_lines_that_are_no_record(tmp_path, line, message):
    file = tmp_path / 'results.jsonl'
    append_record(file, record())
    with file.open('ab') as end:
        end.write(line.encode('latin-1'))
    with pytest.raises(ValueError, match=message):
        read_records(file)


def test_a_last_line_without_an_end(tmp_path):
    """As an editor may leave it."""
    file = tmp_path / 'results.jsonl'
    append_record(file, record())
    file.write_text(file.read_text().rstrip('\n'))
    append_record(file, record(seed=1))
    append_record(file, record(seed=2))
    assert [r.seed for r in read_records(file).values()] == [0, 1, 2]
    assert len(file.read_text().splitlines()) == 3


def test_a_file_that_an_editor_replaces_while_a_ledger_runs(tmp_path):
    """As `sed -i` and vim do: the lock holds and no line is lost."""
    file, copy = tmp_path / 'results.jsonl', tmp_path / 'copy'
    with locked(file):
        append_record(file, record())
        append_record(file, record(seed=1))
        copy.write_text(''.join(file.read_text().splitlines(True)[1:]))
        copy.replace(file)
        with pytest.raises(RuntimeError, match='in use by'), locked(file):
            pass
        append_record(file, record(seed=2))
    assert [r.seed for r in read_records(file).values()] == [1, 2]


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    file = tmp_path / 'results.jsonl'
    write = os.write
    append_record(file, record())
    monkeypatch.setattr(os, 'write', lambda f, line: write(f, line[:9]))
    with pytest.raises(OSError, match='disk full; not recorded'):
        append_record(file, record(seed=1))
    monkeypatch.undo()
    assert read_records(file) == {record().key: record()}
