"""The notebooks run from top to bottom and are kept without outputs."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / 'notebooks'
# Instead of the cell that is tagged 'parameters'.
TINY = {
    'first_student': 'images, size = 8, 64\n'
    'teacher_epochs, student_epochs = 1, 1'
}


def code_cells(name):
    notebook = json.loads((NOTEBOOKS / f'{name}.ipynb').read_text())
    assert notebook['nbformat'] == 4
    return [c for c in notebook['cells'] if c['cell_type'] == 'code']


def test_every_notebook_is_here():
    assert {path.stem for path in NOTEBOOKS.iterdir()} == TINY.keys()


@pytest.mark.parametrize('name', TINY)
def test_outputs_are_stripped(name):
    for cell in code_cells(name):
        assert cell['outputs'] == []
        assert cell['execution_count'] is None


@pytest.mark.slow
@pytest.mark.parametrize('name', TINY)
def test_it_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, 'show', lambda: plt.savefig('shown.png'))
    replaced, names = 0, {'__name__': name}
    for cell in code_cells(name):
        source = ''.join(cell['source'])
        if 'parameters' in cell['metadata'].get('tags', []):
            source, replaced = TINY[name], replaced + 1
        exec(compile(source, f'{name}.ipynb', 'exec'), names)
    assert replaced == 1
    assert (tmp_path / 'shown.png').stat().st_size > 10_000
    # One of the student's layers.
    assert 'bbox_head.retina_cls ' in capsys.readouterr().out
