"""Reads the metadata of an exported file; refuses a file that is damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgor.deploy.optional_imports import require
from mmgor.version import __version__

from .checksum import check_bin_checksum, check_onnx_checksum
from .config_json import from_json
from .metadata import FORMAT, KEY
from .metadata_check import check_metadata
from .ncnn import ncnn_text
from .plain_json import parse_json
from .pte import pte_text
from .tflite import tflite_text


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata inside an exported file.

    Args:
        path (str | Path): Exported file. An ``.xml`` or ``.param`` has its
            ``.bin`` beside it.

    Returns:
        dict: As :func:`~.metadata.make_metadata` made it.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be read, was not written by mmgor or was
            written by a newer version of it, or if it or its ``.bin`` has
            changed since.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(
            f'expected a {" or ".join(READERS)} file of tools/export.py, got '
            f'{path}.'
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'exported model not found: {path}; write it with '
            f'python tools/export.py CONFIG CHECKPOINT --out {path}.'
        )
    text = READERS[path.suffix](path)
    if text is None:
        raise ValueError(
            f'{path} has no mmgor metadata; expected a file that '
            'tools/export.py wrote, got one of another program.'
        )
    return _parse(text, path)


def exported_config(metadata: dict[str, Any]) -> Config:
    """The config that a file was exported with.

    Args:
        metadata (dict): From :func:`read_metadata`.

    Returns:
        Config: The student's ``model`` and the test pipeline, as the file
        has them. Call ``allowed.check_allowed`` before you build anything of
        it.
    """
    return Config(from_json(metadata['config']))


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = parse_json(text)
        newer = metadata['format'] > FORMAT
        if not newer:
            check_metadata(metadata)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{path} has damaged or outdated mmgor metadata ({error!r}); '
            'export it again.'
        ) from error
    if newer:
        raise ValueError(
            f'{path} has metadata of format {metadata["format"]}, written by '
            f'mmgor {metadata.get("version")}; this is mmgor {__version__}, '
            f'which reads format {FORMAT}. Upgrade mmgor.'
        )
    return metadata


def _onnx_text(path: Path) -> str | None:
    """The metadata of an ``.onnx`` file; None for another program's file."""
    onnx = require('onnx')
    content = path.read_bytes()
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf renames its exceptions
        raise ValueError(
            f'{path} could not be read as ONNX ({error}); the file is '
            'truncated or of another kind. Export it again.'
        ) from error
    if has_external_data(model):
        raise ValueError(
            f'{path} has weights in other files; expected all of them inside, '
            'as tools/export.py writes it.'
        )
    properties = {p.key: p.value for p in model.metadata_props}
    if KEY in properties:
        check_onnx_checksum(path, content)
    return properties.get(KEY)


def has_external_data(message: Any) -> bool:
    """Whether any tensor of an ONNX message is kept in another file.

    Such a file may be at any path, so that a model could read any file of
    the machine.

    Args:
        message (Message): A protobuf message: a model or a part of one.
    """
    for field, value in message.ListFields():
        if field.name == 'external_data':
            return True
        if field.message_type is None:
            continue
        single = hasattr(value, 'ListFields')
        if any(map(has_external_data, [value] if single else value)):
            return True
    return False


def _xml_text(path: Path) -> str | None:
    """The metadata of an ``.xml`` file; None for another program's file."""
    core = require('openvino').Core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise ValueError(
            f'{path} could not be read as OpenVINO IR ({error}); the file or '
            'its .bin is missing or truncated. Export it again.'
        ) from error
    if not model.has_rt_info([KEY]):
        return None
    check_bin_checksum(path, model)
    return str(model.get_rt_info([KEY]).value)


#: Reads the metadata of each kind of file. It gives None for a file without.
READERS: dict[str, Callable[[Path], str | None]] = {
    '.onnx': _onnx_text,
    '.xml': _xml_text,
    '.tflite': tflite_text,
    '.param': ncnn_text,
    '.pte': pte_text,
}
