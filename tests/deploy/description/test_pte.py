from hashlib import sha256

import pytest

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.description.pte import pack_pte, pte_text

PROGRAM = b'\x10\0\0\0ET12 any program'


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'file.pte'
    path.write_bytes(pack_pte(PROGRAM, '{"ä": 1}'))
    return path


def test_metadata_follows_the_program(path):
    assert pte_text(path) == '{"ä": 1}'
    content = path.read_bytes()
    assert content.startswith(PROGRAM)
    assert content.endswith(sha256(content[:-32]).digest())


@pytest.mark.parametrize('place', [9, len(PROGRAM) + 1, -50, -1])
def test_a_changed_byte_is_refused(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'file\.pte has changed since'):
        pte_text(path)


def test_files_of_other_programs_have_no_metadata(path):
    path.write_bytes(PROGRAM)
    assert pte_text(path) is None


@pytest.mark.parametrize('content', [b'', b'a text without a mark'])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='could not be read as an Execu'):
        pte_text(path)


@pytest.mark.parametrize('data, count', [(b'\xff', 1), (b'{}', 2**40)])
def test_metadata_that_is_no_text_or_too_long(path, data, count):
    before = PROGRAM + data + count.to_bytes(8, 'little') + b'mmgor\0\0\1'
    path.write_bytes(before + sha256(before).digest())
    with pytest.raises(ValueError, match=r'file\.pte has damaged'):
        read_metadata(path)
