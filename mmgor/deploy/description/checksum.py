"""SHA-256 checksums inside exported files.

An ``.onnx`` file ends with the checksum of all bytes before it. An ``.xml``
file of OpenVINO has the checksum of its ``.bin``. The formats themselves do
not notice a changed weight.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from mmgor.deploy.optional_imports import require

#: Key of the checksum in ONNX metadata_props; this entry ends the file.
ONNX_KEY = 'mmgor_sha256'
#: Key of the checksum of the ``.bin`` in OpenVINO's rt_info.
BIN_KEY = 'mmgor_bin_sha256'


def changed(path: Path) -> ValueError:
    """The error for a file whose checksum is missing or does not match."""
    return ValueError(
        f'{path} has changed since tools/export.py wrote it (its SHA-256 is '
        'missing or does not match): it is damaged, or another program '
        'rewrote it, which is not supported. Copy it again, or export it '
        'again.'
    )


def append_onnx_checksum(path: Path) -> None:
    """Append the checksum of an ``.onnx`` file to its metadata_props.

    Protobuf reads two messages in a row as one message with both lists
    joined. So the file stays the same ONNX model.
    """
    entry = _onnx_entry(path.read_bytes())
    with path.open('ab') as file:
        file.write(entry)


def check_onnx_checksum(path: Path, content: bytes) -> None:
    """Make sure that an ``.onnx`` file has not changed since it was written.

    Args:
        path (Path): Path of the file, for the message.
        content (bytes): All bytes of the file.

    Raises:
        ValueError: If the checksum at its end is missing or does not match.
    """
    length = len(_onnx_entry(b''))
    if content[-length:] != _onnx_entry(content[:-length]):
        raise changed(path)


def _onnx_entry(content: bytes) -> bytes:
    """The bytes of a metadata_props entry with the checksum of a content."""
    model = require('onnx').ModelProto()
    checksum = sha256(content).hexdigest()
    model.metadata_props.add(key=ONNX_KEY, value=checksum)
    entry: bytes = model.SerializeToString()
    return entry


def set_bin_checksum(model: Any, path: Path) -> None:
    """Put the checksum of a ``.bin`` file into the rt_info of its model.

    Args:
        model (openvino.Model): Changed in place; its ``.xml`` has to be
            written again.
        path (Path): The ``.xml`` file beside the ``.bin``.
    """
    model.set_rt_info(_bin_checksum(path), [BIN_KEY])


def check_bin_checksum(path: Path, model: Any) -> None:
    """Make sure that a ``.bin`` file belongs to its ``.xml``.

    Args:
        path (Path): The ``.xml`` file.
        model (openvino.Model): The model read from it.

    Raises:
        ValueError: If the checksum in the ``.xml`` is missing or does not
            match the ``.bin``.
    """
    known = model.has_rt_info([BIN_KEY])
    if not known or (
        str(model.get_rt_info([BIN_KEY]).value) != _bin_checksum(path)
    ):
        raise ValueError(
            f'{path.with_suffix(".bin")} is not the file that was written '
            f'with {path.name} (its SHA-256 is missing there or does not '
            'match). Copy both files of one export, or export again.'
        )


def _bin_checksum(path: Path) -> str:
    return sha256(path.with_suffix('.bin').read_bytes()).hexdigest()
