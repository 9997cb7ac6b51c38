"""Checks of COCO annotation files, names of images, a generated data set."""

from .annotations import read_annotations
from .checks import check_evaluation_data, check_training_data
from .scenes import SceneSpec, generate_scenes

__all__ = [
    'SceneSpec',
    'check_evaluation_data',
    'check_training_data',
    'generate_scenes',
    'read_annotations',
]
