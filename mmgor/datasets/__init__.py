"""Generated scenes, and a clear word on annotation files."""

from .annotations import check_training_data, read_annotations
from .scenes import SceneSpec, generate_scenes

__all__ = [
    'SceneSpec',
    'check_training_data',
    'generate_scenes',
    'read_annotations',
]
