"""Odd images: the work is done, or an error names the file; see
benchmarks/faults/odd_images.py."""

import pytest

from benchmarks.faults.odd_images import Folder, command, commands
from tests.support.training import config_file


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sound')
    config_file(folder)
    return folder


@pytest.mark.parametrize(
    'kind, trains, said',
    [
        ('cut jpeg', False, 'train_a.jpg'),
        ('16 bits', True, ''),
        ('alpha', True, ''),
        ('1 x 1', True, ''),
        ('10000 x 64', False, 'train_a.jpg'),
    ],
)
def test_an_odd_image(sound, tmp_path, kind, trains, said):
    folder = Folder(tmp_path / 'odd', kind, sound)
    fault, text = command(commands(folder, sound)['train'])
    assert bool(fault) is not trains, fault
    assert said in fault + text


@pytest.mark.parametrize('kind', ['cut png', 'empty', 'text', '10000 x 9'])
def test_doctor_names_it(sound, tmp_path, kind):
    folder = Folder(tmp_path / 'odd', kind, sound)
    _, text = command(commands(folder, sound)['doctor'])
    assert folder.images[0].name in text
