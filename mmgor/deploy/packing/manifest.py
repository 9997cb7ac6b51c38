"""Check the manifest of a packed file before its tensors are read."""

from math import ceil, prod
from typing import Any

#: Types of stored tensors, and their NumPy types in the file.
DTYPES = dict(float32='<f4', int32='<i4', int64='<i8', bool='?')
_SIZES = dict(float32=4, int32=4, int64=8, bool=1)
_QUANTIZERS = ('LSQQuantizer', 'MinMaxQuantizer', 'DoReFaQuantizer')
_MOST_DIMENSIONS = 8
_LARGEST_SIDE = 2**31 - 1
_LARGEST = 2**63 - 1


def check_manifest(manifest: dict[str, Any]) -> int:
    """Make sure that every tensor has all its entries and the right number
    of bytes.

    Args:
        manifest (dict): From :func:`.parse_json`.

    Returns:
        int: Bytes of all tensors.

    Raises:
        ValueError: If an entry is missing or wrong; the message names the
            tensor.
    """
    entries = manifest['tensors']
    if not isinstance(entries, list):
        raise ValueError('tensors is not a list')
    known: dict[str, Any] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(
            entry.get('name'), str
        ):
            raise ValueError(f'{entry!r:.100} has no name')
        name = entry['name']
        if name in known:
            raise ValueError(f'{name} occurs twice')
        try:
            _check_entry(entry, known)
            _check_block(entry)
        except (KeyError, TypeError) as error:
            raise ValueError(f'{name} lacks {error}') from error
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        known[name] = entry
    stored = sum(entry.get('bytes', 0) for entry in entries)
    for name, entry in known.items():
        if entry['kind'] == 'weight':
            _check_scale(name, entry, known)
        if entry.get('offset', 0) + entry.get('bytes', 0) > stored:
            raise ValueError(f'{name} is outside of the file')
    return stored


def _check_entry(entry: dict[str, Any], known: dict[str, Any]) -> None:
    kind = entry['kind']
    if kind == 'alias':
        _one_of(entry, 'of', [n for n in known if known[n]['kind'] != 'peak'])
    elif kind == 'integer':
        _one_of(entry, 'dtype', ['int32', 'int64'])
        most = 2 ** (8 * _SIZES[entry['dtype']] - 1)
        _whole(entry, 'value', -most, most - 1)
    elif kind in ('tensor', 'peak'):
        _one_of(entry, 'dtype', [*DTYPES])
        _check_shape(entry['shape'], 0)
    elif kind == 'weight':
        _one_of(entry, 'quantizer', _QUANTIZERS)
        _whole(entry, 'bits', 2, 8)
        _whole(entry, 'qmax', 1, 2 ** (entry['bits'] - 1))
        _check_shape(entry['shape'], 1)
        _check_groups(entry)
    else:
        raise ValueError(f'expected a known kind, got {kind!r:.100}')


def _check_groups(entry: dict[str, Any]) -> None:
    """Check the channels of a transposed convolution."""
    groups = _whole(entry, 'transposed_groups', 0, _LARGEST_SIDE)
    shape = entry['shape']
    if not shape or (groups and (len(shape) < 2 or shape[0] % groups)):
        raise ValueError(f'shape {shape} does not fit {groups} groups')


def _check_shape(shape: Any, least: int) -> None:
    fits = isinstance(shape, list) and all(
        type(side) is int and least <= side <= _LARGEST_SIDE for side in shape
    )
    if not fits or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f'expected a shape, got {shape!r:.100}')


def _check_block(entry: dict[str, Any]) -> None:
    """Make sure that a block has as many bytes as its shape needs."""
    wanted = _block_bytes(entry)
    if not wanted:
        if {'offset', 'bytes'} & set(entry):
            raise ValueError('expected no bytes')
        return
    _whole(entry, 'bytes', wanted, wanted)
    _whole(entry, 'offset', 0, _LARGEST)
    _whole(entry, 'crc32', 0, 2**32 - 1)


def _block_bytes(entry: dict[str, Any]) -> int:
    if entry['kind'] == 'weight':
        return ceil(prod(entry['shape']) * entry['bits'] / 8)
    if entry['kind'] in ('tensor', 'peak'):
        return prod(entry['shape']) * _SIZES[entry['dtype']]
    return 0


def _check_scale(
    name: str, entry: dict[str, Any], known: dict[str, Any]
) -> None:
    scale = known.get(str(entry.get('scale')), {})
    fits = scale.get('dtype') == 'float32' and scale.get('shape') in (
        [1],
        entry['shape'][:1],
    )
    if not fits or scale['kind'] not in ('tensor', 'peak'):
        raise ValueError(
            f'{name}: expected a scale of float32 and shape [1] or '
            f'{entry["shape"][:1]}, got {scale!r:.200}'
        )


def _one_of(entry: dict[str, Any], key: str, known: Any) -> None:
    if not isinstance(entry[key], str) or entry[key] not in known:
        raise ValueError(
            f'{key} is {entry[key]!r:.100}; expected one of {[*known][:9]}'
        )


def _whole(entry: dict[str, Any], key: str, least: int, most: int) -> int:
    value = entry[key]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f'{key} is {value!r:.100}; expected {least} to {most}'
        )
    return value
