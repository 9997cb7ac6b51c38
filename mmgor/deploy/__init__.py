"""From a trained checkpoint to a file that runs without training code."""

from mmgor.registry import share_names

from .detector import Detector
from .export import export_detector
from .metadata import read_metadata
from .pack import pack_model, read_packed
from .runtime import Runtime, open_runtime
from .runtime_config import runtime_model
from .runtime_detector import RuntimeDetector
from .verify import Verification, verify_export

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
