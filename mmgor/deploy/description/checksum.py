"""Digests in exported files: of an ``.onnx``, and of the ``.bin`` of an
``.xml``. Nothing else tells that a byte of a weight has changed since.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from mmgor.deploy.optional_imports import require

#: Key of the digest in ONNX metadata_props, whose entry ends the file.
ONNX_KEY = 'mmgor_sha256'
#: Key of the digest of the ``.bin`` in OpenVINO's rt_info.
BIN_KEY = 'mmgor_bin_sha256'


def seal_onnx(path: Path) -> None:
    """Append the SHA-256 of an ``.onnx`` file to its metadata_props.

    Protobuf reads two messages in a row as one, the lists of both joined, so
    that the file stays the ONNX model that it was.
    """
    seal = _seal(path.read_bytes())
    with path.open('ab') as file:
        file.write(seal)


def check_onnx(path: Path, content: bytes, properties: dict[str, str]) -> None:
    """Make sure that an ``.onnx`` file is as it was written.

    Args:
        path (Path): Its name, for the message.
        content (bytes): What is in it.
        properties (dict[str, str]): Its metadata_props. Files of former
            versions have no digest; nothing is said of them.

    Raises:
        ValueError: If it is not.
    """
    if ONNX_KEY not in properties:
        return
    length = len(_seal(b''))
    if content[-length:] != _seal(content[:-length]):
        raise ValueError(
            f'{path} has changed since tools/export.py wrote it (another '
            'SHA-256): damaged, or rewritten by another program, which is '
            'not supported. Copy it or export it again.'
        )


def names_files(message: Any) -> bool:
    """Whether a tensor of an ONNX message lies in another file, at any path.

    Args:
        message (protobuf Message): A model or a part of one.
    """
    for field, value in message.ListFields():
        if field.name == 'external_data':
            return True
        if field.message_type is None:
            continue
        single = hasattr(value, 'ListFields')
        if any(map(names_files, [value] if single else value)):
            return True
    return False


def _seal(content: bytes) -> bytes:
    model = require('onnx').ModelProto()
    digest = sha256(content).hexdigest()
    model.metadata_props.add(key=ONNX_KEY, value=digest)
    sealed: bytes = model.SerializeToString()
    return sealed


def seal_ir(model: Any, path: Path) -> None:
    """Put the SHA-256 of the ``.bin`` beside an ``.xml`` into a model's
    rt_info; the ``.xml`` is to be written again.
    """
    model.set_rt_info(_bin_digest(path), [BIN_KEY])


def check_ir(path: Path, model: Any) -> None:
    """Make sure that the ``.bin`` is the one that was written with an
    ``.xml``.

    Args:
        path (Path): The ``.xml``.
        model (openvino.Model): Read from it. Files of former versions have
            no digest; nothing is said of them.

    Raises:
        ValueError: If it is not.
    """
    if not model.has_rt_info([BIN_KEY]):
        return
    if str(model.get_rt_info([BIN_KEY]).value) != _bin_digest(path):
        raise ValueError(
            f'{path.with_suffix(".bin")} is not the file that was written '
            f'with {path.name} (another SHA-256); copy both files of one '
            'export, or export again.'
        )


def _bin_digest(path: Path) -> str:
    return sha256(path.with_suffix('.bin').read_bytes()).hexdigest()
