"""Files are written completely or not at all."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from mmengine.config import Config

from mmgor.io.atomic_write import (
    leftovers,
    temporary_name,
    write_image,
    write_text,
    writing,
    writing_together,
)

KIB = 1024


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with writing(path) as part:
        assert part.parent == path.parent and part.suffix == '.txt'
        part.write_text('half')
        assert not path.exists()
        part.write_text('whole')
    assert files(path.parent) == {'a.txt': b'whole'}


def test_an_error_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with pytest.raises(KeyError), writing(path) as part:
        part.write_text('half')
        raise KeyError
    assert files(tmp_path) == {'a.txt': b'old'}


def test_it_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, done = tmp_path / 'a.txt', []

    def watched(name, stock):
        def call(*args):
            done.append(name)
            return stock(*args)

        monkeypatch.setattr(os, name, call)

    watched('fsync', os.fsync)
    watched('replace', os.replace)
    write_text(path, 'ü')
    assert done == ['fsync', 'replace']
    assert path.read_bytes() == 'ü'.encode()


def test_a_kill_leaves_the_old_file_and_a_hidden_one(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    code = (
        'import os, signal, sys; from mmgor.io.atomic_write import writing\n'
        'with writing(sys.argv[1]) as part:\n'
        '    part.write_text("half"); os.kill(os.getpid(), signal.SIGKILL)'
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, path])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == 'old'
    (left,) = tmp_path.glob(temporary_name('a.pth', '*'))
    assert left.name.startswith('.')
    assert leftovers(tmp_path) == [left]


def test_only_what_nobody_writes_is_left_over(tmp_path):
    """Of process 1, which lives, of this one, and files of others."""
    own = tmp_path / temporary_name('a.pth', str(os.getpid()))
    others = ['.a.1.tmp.pth', '.a.tmp.pth', '.a.b.tmp', 'a.1.tmp', '.a.txt']
    for name in (own.name, *others):
        (tmp_path / name).touch()
    assert leftovers(tmp_path) == [own]


def test_a_link_keeps_pointing_at_the_file(tmp_path):
    (tmp_path / 'there').mkdir()
    link = tmp_path / 'link.txt'
    link.symlink_to(tmp_path / 'there' / 'a.txt')
    write_text(link, 'new')
    assert link.is_symlink()
    assert files(tmp_path / 'there') == {'a.txt': b'new'}


def test_devices_are_not_replaced():
    write_text('/dev/null', 'gone')
    assert not os.path.isfile('/dev/null')


def noise():
    return np.random.default_rng(0).integers(
        256, size=(200, 200, 3), dtype='u1'
    )


def test_images(tmp_path):
    import cv2

    path = tmp_path / 'a.png'
    write_image(path, noise())
    assert (cv2.imread(str(path)) == noise()).all()


@pytest.mark.parametrize('kind', ['text', 'image', 'config', 'figure'])
def test_a_full_disk_leaves_the_old_file(kind, tmp_path, small_disk):
    path = tmp_path / ('a.' + dict(config='py', text='txt').get(kind, 'png'))
    path.write_text('old')
    with pytest.raises(OSError) as caught:
        if kind == 'text':
            write_text(path, 'x' * 100 * KIB)
        elif kind == 'image':
            write_image(path, noise())
        elif kind == 'config':
            with writing(path) as part:
                Config(dict(a='x' * 100 * KIB)).dump(part)
        else:
            from matplotlib.figure import Figure

            figure = Figure()
            figure.figimage(noise())
            with writing(path) as part:
                figure.savefig(part)
    assert caught.value.errno == errno.EFBIG
    assert files(tmp_path) == {path.name: b'old'}


def test_of_two_files_none_is_replaced_before_both_are_complete(
    tmp_path, monkeypatch
):
    paths = [tmp_path / 'a.xml', tmp_path / 'a.bin']
    for path in paths:
        path.write_text('old')
    stock, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        stock(file)

    monkeypatch.setattr(os, 'fsync', full)
    with (
        pytest.raises(OSError, match='No space'),
        writing_together(*paths) as parts,
    ):
        for part in parts:
            part.write_text('new')
    assert files(tmp_path) == {'a.xml': b'old', 'a.bin': b'old'}
    calls.extend('xx')
    with writing_together(*paths) as parts:
        for part in parts:
            part.write_text('new')
    assert files(tmp_path) == {'a.xml': b'new', 'a.bin': b'new'}
