"""Odd boxes: finite losses, or an error that names the file; see
benchmarks/faults/odd_boxes.py."""

import pytest

from benchmarks.faults.odd_boxes import run
from tests.support.training import scene_teacher, tiny_scenes


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sound')
    tiny_scenes(folder / 'scenes')
    return folder, scene_teacher(folder)


@pytest.mark.parametrize(
    'kind, outcome, said',
    [
        ('huge', 'trained', 'boxes reach beyond their image'),
        ('same id', 'odd.json: the images', 'both have the id'),
        ('nan size', 'odd.json: images', 'expected a finite number'),
    ],
)
def test_an_odd_file(sound, tmp_path, kind, outcome, said):
    trained, found = run(kind, 0, *sound, tmp_path)
    assert outcome in trained and said in found
