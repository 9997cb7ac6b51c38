"""benchmarks/memory_layout.py: every student is measured in both layouts."""

import memory_layout
import pytest


@pytest.mark.slow
def test_every_student_has_a_row_per_size(monkeypatch, capsys):
    monkeypatch.setattr(memory_layout, 'SIZES', [(64, 64)])
    monkeypatch.setattr(memory_layout, 'BATCH', 1)
    monkeypatch.setattr(memory_layout, 'WARM_UP', 0)
    memory_layout.main(['--rounds', '2'])
    rows = capsys.readouterr().out.splitlines()[2:]
    names = [row.split(' | ')[0].removeprefix('| ') for row in rows]
    assert names == list(memory_layout.STUDENTS)
