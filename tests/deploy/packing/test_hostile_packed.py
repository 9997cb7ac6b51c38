"""Packed files that were made to do harm raise one clear ValueError."""

import json
import zlib

import pytest

from mmgor.deploy.packing.file_format import _HEADER, MAGIC
from mmgor.deploy.packing.pack import pack_model, read_packed
from mmgor.quantization.policy import QuantPolicy
from tests.support.hostile_metadata import DELETED, VALUES
from tests.support.packing import small


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """Manifest and blocks of a valid file with all kinds of entries."""
    path = tmp_path_factory.mktemp('packed') / 'x.mmgor'
    policy = QuantPolicy(weight_quantizer=dict(type='MinMaxQuantizer'))
    pack_model(small(policy), path, {})
    data = path.read_bytes()
    start = _HEADER.size + _HEADER.unpack_from(data)[1]
    text = zlib.decompress(data[_HEADER.size : start])
    return json.loads(text), data[start:]


@pytest.fixture
def read(tmp_path):
    """Write a manifest (or its bytes, packed) with blocks, and read it."""

    def write(manifest, blocks=b'', packed=None):
        text = packed or zlib.compress(json.dumps(manifest).encode())
        head = _HEADER.pack(MAGIC, len(text), zlib.crc32(text))
        (tmp_path / 'y.mmgor').write_bytes(head + text + blocks)
        return read_packed(tmp_path / 'y.mmgor')

    return write


def test_the_valid_file_is_read(good, read):
    kinds = {entry['kind'] for entry in good[0]['tensors']}
    assert kinds == {'weight', 'peak', 'tensor', 'integer'}
    assert read(*good)[1] == good[0]


def test_any_entry_may_be_wrong(good, read):
    """The file is read, or refused with its name."""
    manifest, blocks = good
    refused = 0
    first = {entry['kind']: i for i, entry in enumerate(manifest['tensors'])}
    for place in [(None, key) for key in manifest] + [
        (i, key) for i in first.values() for key in manifest['tensors'][i]
    ]:
        for value in (DELETED, *VALUES):
            changed = json.loads(json.dumps(manifest))
            entry = changed
            if place[0] is not None:
                entry = changed['tensors'][place[0]]
            if value is DELETED:
                del entry[place[1]]
            else:
                entry[place[1]] = value
            try:
                read(changed, blocks)
            except ValueError as error:
                assert 'y.mmgor' in str(error)
                refused += 1
    assert refused > 300


def tensor(**changes):
    entry = dict(name='a', kind='tensor', dtype='float32', shape=[1])
    where = dict(offset=0, bytes=4, crc32=zlib.crc32(b'abcd'))
    return {**entry, **where, **changes}


def weight(**changes):
    entry = dict(name='w', kind='weight', quantizer='LSQQuantizer', bits=4)
    more = dict(qmax=7, shape=[2], transposed_groups=0, scale='a')
    where = dict(offset=0, bytes=1, crc32=0)
    return {**entry, **more, **where, **changes}


@pytest.mark.parametrize(
    'entries, message',
    [
        ([tensor(shape=[-1])], r'a: expected a shape, got \[-1\]'),
        ([tensor(shape=[10**12])], r'a: expected a shape, got \[1000'),
        ([tensor(shape=[2**31 - 1] * 4)], 'a: bytes is 4; expected '),
        ([tensor(shape=[1] * 99)], 'a: expected a shape'),
        ([tensor(dtype='object')], 'a: dtype is .object.; expected one of'),
        ([tensor(dtype=['float32'])], 'a: dtype is .*expected one of'),
        ([tensor(offset=-4)], 'a: offset is -4; expected 0 to'),
        ([tensor(offset=4)], 'a is outside of the file'),
        ([tensor(bytes=-4)], 'a: bytes is -4; expected 4 to 4'),
        ([tensor(), tensor()], 'a occurs twice'),
        ([dict(name='a', kind='alias', of='a')], 'a: of is .a.; expected'),
        ([dict(name='a', kind='integer', dtype='load', value=1)], 'dtype is'),
        (
            [dict(name='a', kind='integer', dtype='int32', value=2**31)],
            'a: value is 2147483648',
        ),
        ([tensor(), weight(bits=0)], 'w: bits is 0; expected 2 to 8'),
        ([tensor(), weight(shape=[10**9])], 'w: bytes is 1; expected 5000000'),
        ([tensor(), weight(scale='b')], 'w: expected a scale of float32'),
        ([tensor(), weight(transposed_groups=2)], r'\[2\] does not fit 2'),
        ([tensor(), weight(quantizer='Popen')], 'w: quantizer is .Popen'),
        ([3], '3 has no name'),
    ],
)
def test_manifests_that_do_not_fit(entries, message, read):
    manifest = dict(format=1, mmgor_version='x', meta={}, tensors=entries)
    with pytest.raises(ValueError, match=message) as caught:
        read(manifest, b'abcd')
    assert 'y.mmgor has a manifest that cannot be used' in str(caught.value)


def test_manifests_that_cannot_be_parsed(read, monkeypatch):
    monkeypatch.setattr('mmgor.deploy.packing.file_format.MOST_BYTES', 1000)
    bomb = zlib.compress(b' ' * 10**6 + b'{}')
    text = zlib.compress(b'{}')
    for packed, message in (
        (bomb, 'expected up to 1000 bytes, in one piece'),
        (text + b'behind', 'expected up to 1000 bytes, in one piece'),
        (text[:-1], 'in one piece'),
        (b'no zlib', 'incorrect header check'),
        (zlib.compress(b'[' * 999), 'nested up to|Expecting value'),
        (zlib.compress(b'[]'), 'list indices'),
        (zlib.compress(b'{}'), "KeyError.'format'"),
        (zlib.compress(b'{"format": "1"}'), 'not supported between'),
        (zlib.compress(b'{"format": NaN}'), 'expected numbers, got NaN'),
        (zlib.compress(b'\xff'), 'utf-8'),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            read(None, packed=packed)
        assert 'y.mmgor' in str(caught.value)
