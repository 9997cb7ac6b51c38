"""Deployment: from a trained checkpoint to a file that runs without it.

- ``export``: writes files (``export/exporter.py``), those of ONNX and OpenVINO
  by itself
- ``litert``, ``executorch``, ``ncnn``: writers of these formats
- ``decomposed``: lowers a frozen network to int8 for LiteRT and ExecuTorch
- ``description``: the metadata inside these files
- ``runtime``: runs them: raw outputs, mmdet detectors, images and videos
- ``verify``: compares them with their checkpoint
- ``packing``: stores each weight with the bits of its layer
- ``integer_reference``: computes layers in integers only
- ``cost``: counts operations and bytes per layer
- ``loading``: reads a config and a checkpoint
"""

from mmgor.registry import share_names

from .description.metadata_reader import read_metadata
from .export.exporter import export_detector
from .packing.pack import pack_model, read_packed
from .runtime.detector import Detector
from .runtime.runtime import Runtime, open_runtime
from .runtime.runtime_config import runtime_model
from .runtime.runtime_detector import RuntimeDetector
from .verify.verify_export import Verification, verify_export

share_names()

__all__ = [
    'Detector',
    'Runtime',
    'RuntimeDetector',
    'Verification',
    'export_detector',
    'open_runtime',
    'pack_model',
    'read_metadata',
    'read_packed',
    'runtime_model',
    'verify_export',
]
