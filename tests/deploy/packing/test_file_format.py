"""The packed file: its layout, and files that cannot be read."""

import json
import struct
import zlib

import numpy as np
import pytest

from mmgor.deploy.packing import file_format as pack_file
from mmgor.deploy.packing.pack import pack_model, read_packed
from mmgor.quantization.policy import QuantPolicy
from tests.support.packing import small


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp('packed') / 'x.mmgor'
    pack_model(small(QuantPolicy()), path, {})
    return path


def test_files_that_cannot_be_read(packed, tmp_path):
    data, path = packed.read_bytes(), tmp_path / 'y'
    with pytest.raises(FileNotFoundError, match=r'not found.*tools/pack\.py'):
        read_packed(path)
    for foreign in (b'', b'PK\x03\x04 a torch checkpoint', data[1:]):
        path.write_bytes(foreign)
        with pytest.raises(
            ValueError, match=r"not a packed file.*b'mmgor.*go"
        ):
            read_packed(path)
    for length in (8, 19, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f'cut off.*bytes, got {length}'):
            read_packed(path)
    path.write_bytes(data + b'x')
    with pytest.raises(ValueError, match=f'expected {len(data)} bytes'):
        read_packed(path)


@pytest.mark.parametrize(
    'place, what', [(40, 'the manifest'), (-1, r'4\.input_quantizer\.log_')]
)
def test_damage_is_located(packed, tmp_path, place, what):
    data = bytearray(packed.read_bytes())
    data[place] ^= 1
    path = tmp_path / 'y'
    path.write_bytes(data)
    told = f'damaged at {what}.*: expected the checksum [0-9a-f]{{8}}, got'
    with pytest.raises(ValueError, match=told):
        read_packed(path)


def test_later_formats_are_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_file, 'FORMAT', 2)
    path = tmp_path / 'y'
    pack_model(small(QuantPolicy()), path, {})
    monkeypatch.undo()
    told = r'format 2, written by mmgor .*at most 1.*pip install -U mmgor'
    with pytest.raises(ValueError, match=told):
        read_packed(path)


def test_the_layout_as_documented(packed):
    """Header, manifest and one weight, read without mmgor."""
    data = packed.read_bytes()
    magic, length, checksum = struct.unpack('<8sQI', data[:20])
    assert magic == b'mmgor\r\n\x1a'
    text = data[20 : 20 + length]
    assert zlib.crc32(text) == checksum
    manifest = json.loads(zlib.decompress(text))
    tensors = {entry['name']: entry for entry in manifest['tensors']}
    entry = tensors['4.weight']
    assert (entry['kind'], entry['bits'], entry['qmax']) == ('weight', 4, 7)

    def block(name):
        start = 20 + length + tensors[name]['offset']
        return data[start : start + tensors[name]['bytes']]

    halves = np.frombuffer(block('4.weight'), np.uint8)
    nibbles = np.stack([halves & 15, halves >> 4], 1).ravel().astype(int)
    integers = np.where(nibbles > 7, nibbles - 16, nibbles)
    step = np.exp(np.frombuffer(block(entry['scale']), '<f4'))
    expected = small(QuantPolicy())[4].quantized_weight().detach().numpy()
    got = integers[: expected.size].reshape(entry['shape']) * step[:, None]
    assert np.allclose(got, expected, atol=1e-6)
