"""Knowledge distillation: teachers, taps, KD heads."""

from .adapters import Connectors, match_size
from .kd_heads import BaseKDHead, FeatureKDHead, LogitKDHead
from .losses import CWDLoss, FeatureMSELoss, PKDLoss
from .preprocess import to_teacher_inputs
from .taps import Taps, as_list, check_tap
from .teachers import Teacher, Teachers

__all__ = [
    'BaseKDHead',
    'CWDLoss',
    'Connectors',
    'FeatureKDHead',
    'FeatureMSELoss',
    'LogitKDHead',
    'PKDLoss',
    'Taps',
    'Teacher',
    'Teachers',
    'as_list',
    'check_tap',
    'match_size',
    'to_teacher_inputs',
]
