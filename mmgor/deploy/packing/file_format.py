"""The packed file: a header, a manifest and the bytes of the tensors.

====================  ====================================================
bytes                 meaning
====================  ====================================================
8                     ``MAGIC``
8                     length of the manifest's bytes, little-endian
4                     CRC-32 of these bytes, little-endian
length                manifest: JSON in UTF-8, compressed with zlib
rest                  blocks, at the offsets that the manifest gives
====================  ====================================================
"""

import json
import struct
from pathlib import Path
from typing import Any
from zlib import compress, crc32, decompressobj
from zlib import error as zlib_error

from mmgor.deploy.description.plain_json import MOST_BYTES, parse_json
from mmgor.version import __version__

from .manifest import check_manifest

#: Has a line end, which a copy in text mode would change.
MAGIC = b'mmgor\r\n\x1a'
#: Version of the file format. Files of a later one cannot be read.
FORMAT = 1
PACK_HINT = 'python tools/pack.py CONFIG CHECKPOINT --out FILE'
_HEADER = struct.Struct('<8sQI')


def write_file(
    path: Path,
    meta: dict[str, Any],
    entries: list[tuple[dict[str, Any], bytes]],
) -> dict[str, int]:
    """Write manifest and blocks.

    Args:
        path (Path): The file. It is written in place; see
            :func:`mmgor.io.atomic_write.writing`.
        meta (dict): Facts for the manifest, which JSON can hold.
        entries (list[tuple[dict, bytes]]): For each tensor its entry in the
            manifest and its bytes. Entries with bytes get their offset,
            length and checksum here.

    Returns:
        dict[str, int]: Size of the file in ``bytes``, that of all blocks in
        ``tensor_bytes``, and the rest in ``manifest_bytes``.
    """
    tensors, offset = [], 0
    for entry, block in entries:
        if block:
            where = dict(offset=offset, bytes=len(block), crc32=crc32(block))
            entry = {**entry, **where}
            offset += len(block)
        tensors.append(entry)
    manifest = dict(
        format=FORMAT, mmgor_version=__version__, meta=meta, tensors=tensors
    )
    # Uncompressed, the names would take a quarter of a small network's file.
    text = compress(json.dumps(manifest).encode())
    with path.open('wb') as file:
        file.write(_HEADER.pack(MAGIC, len(text), crc32(text)))
        file.write(text)
        for _, block in entries:
            file.write(block)
    overhead = _HEADER.size + len(text)
    return dict(
        bytes=overhead + offset, tensor_bytes=offset, manifest_bytes=overhead
    )


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest, and the bytes of the tensors by name.

    Args:
        path (Path): File that :func:`write_file` wrote.

    Returns:
        tuple[dict, dict[str, bytes]]: The manifest and the blocks; tensors
        without bytes have no block.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a packed file, has a later format, or is cut
            off or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'packed file not found: {path}. To write one: {PACK_HINT}'
        )
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(
            f'{path} is not a packed file of mmgor: expected it to begin with '
            f'{MAGIC!r}, got {data[: len(MAGIC)]!r}. To write one: {PACK_HINT}'
        )
    _check_length(path, data, _HEADER.size)
    _, length, checksum = _HEADER.unpack_from(data)
    start = _HEADER.size + length
    _check_length(path, data, start)
    text = data[_HEADER.size : start]
    _check_sum(path, 'the manifest', text, checksum)
    try:
        manifest, stored = _read_manifest(text)
    except (ValueError, TypeError, KeyError, zlib_error) as error:
        raise ValueError(
            f'{path} has a manifest that cannot be used ({error!r}); write '
            f'the file again: {PACK_HINT}'
        ) from error
    if manifest['format'] > FORMAT:
        raise ValueError(
            f'{path} has format {manifest["format"]}, written by mmgor '
            f'{manifest.get("mmgor_version")}; expected at most {FORMAT}, '
            f'which is what this mmgor {__version__} reads. Type: '
            'pip install -U mmgor, or write the file with this version: '
            f'{PACK_HINT}'
        )
    _check_length(path, data, start + stored, exactly=True)
    blocks = {}
    for entry in manifest['tensors']:
        if 'offset' not in entry:
            continue
        first = start + entry['offset']
        block = data[first : first + entry['bytes']]
        _check_sum(path, entry['name'], block, entry['crc32'])
        blocks[entry['name']] = block
    return manifest, blocks


def _read_manifest(text: bytes) -> tuple[dict[str, Any], int]:
    """The manifest, and the bytes of its tensors (0 for a later format)."""
    inflating = decompressobj()
    plain = inflating.decompress(text, MOST_BYTES)
    if not inflating.eof or inflating.unused_data:
        raise ValueError(f'expected up to {MOST_BYTES} bytes, in one piece')
    manifest = parse_json(plain)
    known = manifest['format'] <= FORMAT
    return manifest, check_manifest(manifest) if known else 0


def _check_length(
    path: Path, data: bytes, expected: int, exactly: bool = False
) -> None:
    if len(data) < expected or (exactly and len(data) > expected):
        bound = '' if exactly else 'at least '
        raise ValueError(
            f'{path} is cut off or too long: expected {bound}'
            f'{expected} bytes, got {len(data)}. Copy it again, or write it '
            f'again: {PACK_HINT}'
        )


def _check_sum(path: Path, what: str, block: bytes, expected: int) -> None:
    if crc32(block) != expected:
        raise ValueError(
            f'{path} is damaged at {what}: expected the checksum '
            f'{expected:08x}, got {crc32(block):08x}. Copy it again, or write '
            f'it again: {PACK_HINT}'
        )
