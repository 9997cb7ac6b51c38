"""Files that were made to do harm. Each kind of file has more in its place:

- checkpoints: tests/io/test_checkpoint_reader.py
- exported files: tests/deploy/description/test_hostile_metadata.py
- packed files: tests/deploy/packing/test_hostile_packed.py
- plans: tests/experiments/test_plan.py
- pages: tests/deploy/cost/test_html.py, tests/training_report/test_write.py

The long form is benchmarks/faults/hostile_files.py.
"""

import io
import json
from hashlib import blake2b
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmgor.conversion.student_config import StudentConfig
from mmgor.datasets.data_folder import read_data_folder
from mmgor.distillation.teachers.cache import OutputCache
from tests.support.training import tiny_scenes

QUOTES = 'a\'"""\n\nopen("ran", "w") #\\'


class Attack:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path('ran'),)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path('ran').exists()


def test_a_cached_output_with_code_counts_as_missing():
    """Anyone can compute its checksum."""
    cache, buffer = OutputCache('big', 'cache'), io.BytesIO()
    torch.save(dict(neck=Attack()), buffer)
    content = buffer.getvalue()
    checksum = blake2b(content, digest_size=32).digest()
    path = cache._path('abc')
    path.parent.mkdir(parents=True)
    path.write_bytes(content + checksum)
    assert cache._read('abc') is None


@pytest.mark.parametrize(
    'part, key, name, told',
    [
        ('images', 'file_name', '../secret.png', 'outside of images/'),
        ('images', 'file_name', 'a/../../x.png', 'outside of images/'),
        ('images', 'file_name', '/etc/passwd', 'outside of images/'),
        ('images', 'file_name', 3, 'expected text'),
        ('categories', 'name', '{{$HOME:x}}', 'mmengine replaces'),
        ('categories', 'name', None, 'expected text'),
    ],
)
def test_names_of_a_data_folder(part, key, name, told):
    root = tiny_scenes(Path('data'))
    content = json.loads((root / 'train.json').read_text())
    content[part][0][key] = name
    (root / 'train.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'{key}.*{told}'):
        read_data_folder(root)


def test_names_in_a_written_config():
    config = StudentConfig('A title.', f'mmgor convert {QUOTES}', 'base.py')
    config.add('classes', (QUOTES, 'b'), QUOTES)
    Path('base.py').write_text('')
    Path('student.py').write_text(config.text())
    assert Config.fromfile('student.py').classes == (QUOTES, 'b')
