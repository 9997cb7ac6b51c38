"""The metadata and the checksum inside a ``.tflite`` file.

LiteRT's format has named metadata. One entry holds ours, another one the
SHA-256 of the file. To compute it, its own digits count as zeros.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mmgor.deploy.optional_imports import require

from .checksum import changed
from .metadata import KEY

#: Name of the metadata entry with the checksum.
CHECKSUM_KEY = 'mmgor_sha256'
_MARK = b'mmgor_sha256='
_DIGITS = 64
# Most metadata entries of a file. LiteRT writes three.
_MOST_ENTRIES = 64


def pack_tflite(model: Any, text: str) -> bytes:
    """The bytes of a ``.tflite`` file with metadata and checksum.

    Args:
        model (ModelT): Object of LiteRT's schema; gets the metadata.
        text (str): Metadata as JSON.

    Returns:
        bytes: The file.
    """
    schema = require('ai_edge_litert.schema_py_generated')
    utils = require('ai_edge_litert.tools.flatbuffer_utils')
    unsigned = _MARK + b'0' * _DIGITS
    for name, data in ((KEY, text.encode()), (CHECKSUM_KEY, unsigned)):
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer = name, len(model.buffers)
        buffer.data = np.frombuffer(data, np.uint8)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    content = bytes(utils.convert_object_to_bytearray(model))
    before, _, after = _split(content)
    return before + _checksum(content) + after


def tflite_text(path: Path) -> str | None:
    """The metadata of a ``.tflite`` file.

    Args:
        path (Path): The file.

    Returns:
        str | None: JSON; None for another program's file.

    Raises:
        ValueError: If it is no ``.tflite`` file, or has changed since it was
            written.
    """
    content = path.read_bytes()
    try:
        entries = _entries(content)
    except Exception as error:  # whatever damaged bytes cause
        raise ValueError(
            f'{path} could not be read as a LiteRT file ({error!r}); it is '
            'truncated or of another kind. Export it again.'
        ) from error
    if KEY not in entries:
        return None
    if _split(content)[1] != _checksum(content):
        raise changed(path)
    # Anyone may have written it: what is no UTF-8 is no JSON either.
    return entries[KEY].decode(errors='replace')


def _entries(content: bytes) -> dict[str, bytes]:
    """The named metadata of a file."""
    schema = require('ai_edge_litert.schema_py_generated').Model
    if not schema.ModelBufferHasIdentifier(content, 0):
        raise ValueError('it has no TFL3 mark')
    model = schema.GetRootAs(content, 0)
    found = {}
    for index in range(min(model.MetadataLength(), _MOST_ENTRIES)):
        entry = model.Metadata(index)
        data = model.Buffers(entry.Buffer())
        if entry.Name() is not None and data.DataLength():
            found[entry.Name().decode()] = data.DataAsNumpy().tobytes()
    return found


def _split(content: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before the digits of the checksum, the digits, the rest."""
    start = content.rfind(_MARK) + len(_MARK)
    end = start + _DIGITS
    return content[:start], content[start:end], content[end:]


def _checksum(content: bytes) -> bytes:
    before, digits, after = _split(content)
    zeros = b'0' * len(digits)
    return sha256(before + zeros + after).hexdigest().encode()
