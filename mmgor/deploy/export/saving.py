"""Writes an ONNX graph with its metadata and checksum, or as OpenVINO IR."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmgor.deploy.description.checksum import (
    append_onnx_checksum,
    set_bin_checksum,
)
from mmgor.deploy.description.metadata import KEY
from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.optional_imports import require
from mmgor.io.atomic_write import writing, writing_together

from .deform_conv import openvino_extension


def save_exported(
    model: Any,
    metadata: dict[str, Any],
    path: Path,
    check: Callable[[Path], None] | None = None,
) -> int:
    """Write a graph as ``.onnx``, or as ``.xml`` and ``.bin`` of OpenVINO.

    An error leaves no half-written file behind.

    Args:
        model (onnx_ir.Model): The graph; gets the metadata.
        metadata (dict): From :func:`.make_metadata`.
        path (Path): ``.onnx`` or ``.xml`` file to write.
        check (Callable, optional): Gets the path of the ONNX file before
            anything is in place, and raises if something is wrong with it.

    Returns:
        int: Size of what was written, in bytes.
    """
    if path.suffix == '.onnx':
        with writing(path) as part:
            save_onnx(model, metadata, part)
            if check is not None:
                check(part)
            return part.stat().st_size
    with (
        writing_together(path, path.with_suffix('.bin')) as (xml, weights),
        tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder,
    ):
        source = Path(folder) / 'model.onnx'
        save_onnx(model, metadata, source)
        if check is not None:
            check(source)
        to_openvino(source, xml)
        return xml.stat().st_size + weights.stat().st_size


def save_onnx(model: Any, metadata: dict[str, Any], path: Path) -> None:
    """Write an ``.onnx`` file with its metadata and checksum.

    Args:
        model (onnx_ir.Model): The graph; gets the metadata.
        metadata (dict): From :func:`.make_metadata`.
        path (Path): File to write.
    """
    model.metadata_props[KEY] = json.dumps(metadata)
    require('onnx_ir').save(model, path)
    append_onnx_checksum(path)


def to_openvino(source: Path, target: Path) -> None:
    """Convert an exported ``.onnx`` file to OpenVINO IR with its metadata.

    Args:
        source (Path): File of :func:`.export_detector`.
        target (Path): ``.xml`` to write; its ``.bin`` is written beside it.
    """
    graph = read_as_openvino(source)
    save_openvino(graph, json.dumps(read_metadata(source)), target)


def read_as_openvino(source: Path) -> Any:
    """Read an ``.onnx`` file into OpenVINO.

    Args:
        source (Path): File of :func:`save_onnx`.

    Returns:
        openvino.Model: The graph.
    """
    return require('openvino').convert_model(
        source, extension=[openvino_extension()]
    )


def save_openvino(model: Any, text: str, target: Path) -> None:
    """Write OpenVINO IR with its metadata and the checksum of the ``.bin``.

    The checksum goes into the ``.xml``. Without it, the ``.bin`` of another
    export could not be noticed.

    Args:
        model (openvino.Model): The graph; gets the metadata.
        text (str): Metadata as JSON.
        target (Path): ``.xml`` to write; its ``.bin`` is written beside it.

    Raises:
        OSError: If the disk is full.
    """
    model.set_rt_info(text, [KEY])
    _save_model(model, target)
    set_bin_checksum(model, target)
    _save_model(model, target)


def _save_model(model: Any, target: Path) -> None:
    try:
        require('openvino').save_model(model, target, compress_to_fp16=False)
    except RuntimeError as error:
        if 'iostream' not in str(error):
            raise
        free = shutil.disk_usage(target.parent).free
        raise OSError(
            f'OpenVINO could not write {target} ({error}): No space left on '
            f'device? {free} bytes are free.'
        ) from error
