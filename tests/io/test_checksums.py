"""Damaged checkpoints are refused, however they are loaded."""

import shutil
import subprocess
from io import BytesIO

import pytest
import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmgor.deploy.loading import load_detector
from mmgor.distillation.teachers.loading import read_checkpoint
from mmgor.io.checksums import check_intact, checksum_path, write_checkpoint
from mmgor.registry import MODELS
from tests.support.models import retinanet_cfg


def saved(content):
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    write_checkpoint(path, saved(dict(state_dict=dict(w=torch.ones(99)))))
    return path


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), 'cpu')


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_checksum_is_that_of_coreutils(checkpoint):
    if shutil.which('sha256sum') is None:
        pytest.skip('no sha256sum here')
    done = subprocess.run(
        ['sha256sum', '-c', checksum_path(checkpoint).name],
        cwd=checkpoint.parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout == 'epoch_1.pth: OK\n'


def test_good_ones_load(checkpoint):
    loaded = load(checkpoint)
    assert loaded['state_dict']['w'].sum() == 99


def test_an_old_format_without_checksums_loads(tmp_path):
    path = tmp_path / 'old.pth'
    torch.save(dict(w=1), path, _use_new_zipfile_serialization=False)
    assert load(path) == dict(w=1)


def test_any_changed_byte_is_found(checkpoint):
    size = checkpoint.stat().st_size
    for position in range(0, size, 97):
        flip(checkpoint, position)
        with pytest.raises(ValueError, match='its SHA-256 is'):
            check_intact(checkpoint)
        flip(checkpoint, position)
    check_intact(checkpoint)


def test_without_a_checksum_file_no_changed_weight_is_loaded(checkpoint):
    """Each tensor in a file of torch.save() has a CRC-32."""
    checksum_path(checkpoint).unlink()
    size, refused = checkpoint.stat().st_size, 0
    for position in range(0, size, 7):
        flip(checkpoint, position)
        try:
            weight = load(checkpoint)['state_dict']['w']
        except Exception:  # a changed name may not be found
            refused += 1
        else:
            assert weight.equal(torch.ones(99)), position
        flip(checkpoint, position)
    assert refused > size / 7 / 4


@pytest.mark.parametrize('size', [0, 500, -1])
def test_cut_off(checkpoint, size):
    checkpoint.write_bytes(checkpoint.read_bytes()[:size])
    with pytest.raises(ValueError, match='damaged: its SHA-256'):
        load(checkpoint)
    checksum_path(checkpoint).unlink()
    with pytest.raises(Exception) as caught:
        load(checkpoint)
    assert size == 0 or 'damaged: it is cut off' in str(caught.value)


def test_an_older_checksum_never_stays_beside_a_new_file(
    checkpoint, monkeypatch
):
    """A kill between the two leaves a good file without a checksum."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmgor.io.checksums.write_text', killed)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(checkpoint, saved(dict(w=2)))
    assert load(checkpoint) == dict(w=2)


def ways():
    """Functions that load a file, by name."""
    cfg = Config(dict(model=retinanet_cfg()))
    backbone = dict(cfg.model.backbone)

    def pretrained(path):
        init = dict(type='Pretrained', checkpoint=str(path))
        MODELS.build(dict(backbone, init_cfg=init)).init_weights()

    return {
        'load_from': lambda path: load_checkpoint(nn.Linear(1, 1), str(path)),
        'init_cfg': pretrained,
        'init_detector': lambda path: init_detector(cfg, str(path)),
        'teacher': lambda path: read_checkpoint('big', str(path)),
        'export': lambda path: load_detector(cfg, path),
    }


@pytest.mark.parametrize('way', ways())
def test_every_way_to_load_checks(way, checkpoint):
    flip(checkpoint, 600)
    with pytest.raises(Exception, match=r'epoch_1\.pth is damaged'):
        ways()[way](checkpoint)
