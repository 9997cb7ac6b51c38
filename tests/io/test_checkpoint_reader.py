"""Checkpoints are read or refused with a ValueError, and never run code."""

import io
import logging
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmgor.deploy.loading import load_detector
from mmgor.distillation.teachers import loading as teacher_files
from mmgor.io.checkpoint_reader import (
    guard_local_files,
    protect_loading,
    read_ahead,
    read_checkpoint,
    read_state_dict,
)

FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def write(content, path, form):
    if form == 'plain':
        path.write_bytes(pickle.dumps(content, 2))
    else:
        zipped = form == 'zip'
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture(params=['zip', 'legacy', 'plain'])
def attack(request, tmp_path):
    """A checkpoint with code, and the file that the code would make."""
    mark = tmp_path / 'ran'
    content = dict(state_dict=dict(w=torch.ones(2)), meta=Attack(mark))
    yield write(content, tmp_path / 'evil.pth', request.param)
    assert not mark.exists()


@pytest.fixture
def stacks_loader(monkeypatch):
    """Restores mmengine's loaders after the test."""
    schemes = dict(CheckpointLoader._schemes)
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)
    for key in (FORCE, TRUST):
        monkeypatch.setenv(key, '0')
        monkeypatch.delenv(key)


def unpickling(path, map_location=None):
    """What onedl-mmengine falls back to, and torch.hub does with any URL."""
    return torch.load(path, map_location, weights_only=False)


def test_readers_refuse_code(attack, stacks_loader):
    CheckpointLoader.register_scheme('', unpickling, force=True)
    for read in (read_checkpoint, read_state_dict):
        with pytest.raises(ValueError, match=r'evil\.pth could not be read.*'):
            read(attack)
    with pytest.raises(RuntimeError, match=r"of teacher 'x' could not be re"):
        teacher_files.read_checkpoint('x', str(attack))


def test_addresses_are_read_with_the_protection_on(
    attack, stacks_loader, monkeypatch
):
    def from_address(address, map_location):
        return unpickling(attack)

    CheckpointLoader.register_scheme('zoo://', from_address)
    monkeypatch.setenv(TRUST, '1')
    with pytest.raises(ValueError, match='zoo://x could not be read'):
        read_checkpoint('zoo://x')
    # As the user had set it.
    assert os.environ[TRUST] == '1' and FORCE not in os.environ


def test_the_stacks_own_loaders_are_protected(attack, stacks_loader):
    protect_loading()
    with pytest.raises(ValueError, match=r'evil\.pth could not be read'):
        load_checkpoint(torch.nn.Linear(1, 1), str(attack))
    with pytest.raises(pickle.UnpicklingError):
        unpickling(attack)


def test_importing_mmgor_is_enough_for_local_files(attack, stacks_loader):
    with pytest.raises(ValueError, match=r'evil\.pth could not be read'):
        load_checkpoint(torch.nn.Linear(1, 1), str(attack))


def test_others_may_remove_allowed_classes(tmp_path):
    """onedl-mmengine does so after each file that it reads itself."""
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(state_dict={}, log=buffer), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([HistoryBuffer]):
        pass
    loaded = read_checkpoint(tmp_path / 'a.pth')
    assert loaded['log'].data[0].tolist() == [1, 2]


def test_files_can_be_trusted(stacks_loader, monkeypatch):
    CheckpointLoader.register_scheme('', lambda *_: 'stock', force=True)
    guard_local_files()
    monkeypatch.setenv(TRUST, '1')
    protect_loading()
    assert FORCE not in os.environ
    assert CheckpointLoader.load_checkpoint('a.pth') == 'stock'


def test_the_protected_loader_loads(tmp_path, stacks_loader):
    protect_loading()
    torch.save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), 'cpu')
    assert loaded['state_dict']['w'].tolist() == [1, 1]
    with pytest.raises(FileNotFoundError, match=r'not found: gone\.pth'):
        CheckpointLoader.load_checkpoint('gone.pth')


@pytest.mark.parametrize(
    'content, message',
    [
        ([1], 'holds a list; expected a dict of tensors'),
        (dict(state_dict=3), 'holds a int; expected a dict of tensors'),
        ({3: torch.ones(1)}, r'has the keys \[3\], expected names'),
        (dict(w=torch.zeros(1).expand(10**11)), r'4 bytes .* 400000000000 by'),
        (
            dict(w=torch.eye(2).to_sparse()),
            r'x\.pth: w is a tensor of torch.s',
        ),
        (dict(w=torch.ones(2, device='meta')), 'w is a tensor of .* on meta'),
    ],
    ids=['list', 'number', 'unnamed', 'expanded', 'sparse', 'meta'],
)
def test_contents_that_are_not_a_dict_of_weights(content, message, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=message) as caught:
        read_state_dict(tmp_path / 'x.pth')
    assert 'x.pth' in str(caught.value)


def test_odd_meta(tmp_path):
    from mmengine.config import Config

    from tests.support.models import retinanet_cfg

    cfg = Config(dict(model=retinanet_cfg()))
    state = load_detector(cfg, None).state_dict()
    torch.save(dict(state_dict=state, meta=[1]), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth has the meta \[1\]; exp'):
        load_detector(cfg, tmp_path / 'x.pth')


def pickled(data):
    """A checkpoint whose pickle is ``data``."""
    plain, crafted = io.BytesIO(), io.BytesIO()
    torch.save({}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(crafted, 'w') as new:
        for name in old.namelist():
            mine = name.endswith('data.pkl')
            new.writestr(name, data if mine else old.read(name))
    crafted.seek(0)
    return crafted


def word(text):
    return b'X' + len(text).to_bytes(4, 'little') + text.encode()


_NDARRAY = b'cnumpy\nndarray\n'
_PLACES = ('numpy._core.multiarray', 'numpy.core.multiarray')
# Bytes that would be used as the address of a Python object.
_ADDRESS = b'c_codecs\nencode\n' + word('A' * 8) + word('latin1') + b'\x86R'


@pytest.mark.parametrize(
    'data',
    [
        _NDARRAY + b'K\x01\x85' + word('O') + _ADDRESS + b'\x87R.',
        b'cnumpy\ndtype\n' + word('O8') + b'\x89\x88\x87R.',
        b'cnumpy\ndtype\n](' + word('a') + word('O') + b'\x86e\x85R.',
        *(
            f'c{place}\n_reconstruct\nccollections\nOrderedDict\n'.encode()
            + b'K\x00\x85' + word('b') + b'\x87R.'
            for place in _PLACES
        ),
    ],
    ids=['buffer', 'object', 'record', 'other', 'other_old'],
)  # fmt: skip
def test_numpy_gives_only_numbers(data):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(pickled(b'\x80\x02' + data), weights_only=True)


def test_a_file_cannot_change_a_type_of_numbers():
    """It tries to set the flags of an object type on a number type."""
    state = b'(K\x03' + word('<') + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff'
    data = b'\x80\x02cnumpy\ndtype\n' + word('f8') + b'\x89\x88\x87R'
    loaded = torch.load(pickled(data + state + b'K\x3ftb.'), weights_only=True)
    assert str(loaded) == 'float64' and loaded.flags == 0


def test_tools_protect_their_runner(monkeypatch, stacks_loader):
    import sys

    folder = Path(__file__).resolve().parents[2] / 'tools'
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, '_common', raising=False)
    import _common
    from mmengine.config import Config

    runner = SimpleNamespace(logger=logging.getLogger('of a runner'))
    monkeypatch.setattr(_common.Runner, 'from_cfg', lambda cfg: runner)
    _common.build_runner(Config(dict()))
    assert os.environ[FORCE] == '1'


def test_what_was_read_ahead_is_given_once_and_moved(tmp_path):
    path = str(tmp_path / 'a.pth')
    weights = OrderedDict(w=torch.ones(2))
    weights._metadata = dict(version=2)
    states = [(3, torch.ones(1), None)]
    torch.save(dict(state_dict=weights, states=states), path)
    kept = read_ahead(path)
    assert read_ahead(path) is kept
    given = CheckpointLoader.load_checkpoint(path, 'meta')
    assert given is kept
    assert given['state_dict']['w'].is_meta
    assert given['state_dict']._metadata == dict(version=2)
    assert given['states'][0][0] == 3
    assert given['states'][0][1].is_meta
    assert CheckpointLoader.load_checkpoint(path, 'cpu') is not kept


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(dict(w=torch.ones(2)), path)
    read_ahead(path)
    torch.save(dict(w=torch.ones(3)), path)
    assert len(CheckpointLoader.load_checkpoint(path, 'cpu')['w']) == 3
    assert len(read_ahead(path)['w']) == 3
