import copy

import pytest

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.description.tflite import pack_tflite
from tests.support.litert import write_tflite

schema = pytest.importorskip('ai_edge_litert.schema_py_generated')


@pytest.fixture
def empty():
    """A model without operators, as another program would write it."""
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [schema.SubGraphT()]
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    return model


@pytest.fixture
def path(empty, tmp_path):
    return write_tflite(empty, tmp_path / 'file.tflite')


def test_metadata_is_read_back(path):
    metadata = read_metadata(path)
    assert metadata['outputs'] == ['output_0']
    assert metadata['target'] == 'litert'


@pytest.mark.parametrize('place', [8, -1, None])
def test_a_changed_file_is_refused(path, place):
    content = bytearray(path.read_bytes())
    # The last byte, one of the tables, or one of the checksum's own digits.
    at = content.index(b'mmgor_sha256=') + 20 if place is None else place
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'has changed since|could not be'):
        read_metadata(path)


@pytest.mark.parametrize('length', [0, 3, 50, 400])
def test_a_truncated_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match='could not be read as a LiteRT file'):
        read_metadata(path)


def test_files_of_other_programs_are_refused(empty, tmp_path):
    utils = pytest.importorskip('ai_edge_litert.tools.flatbuffer_utils')
    path = tmp_path / 'other.tflite'
    path.write_bytes(utils.convert_object_to_bytearray(empty))
    with pytest.raises(ValueError, match='has no mmgor metadata'):
        read_metadata(path)
    path.write_bytes(b'\x00' * 100)
    with pytest.raises(ValueError, match='no TFL3 mark'):
        read_metadata(path)


def test_one_content_has_one_file(empty):
    first, second = (pack_tflite(copy.deepcopy(empty), '{}') for _ in 'ab')
    assert first == second
