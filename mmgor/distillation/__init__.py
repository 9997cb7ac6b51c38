"""Knowledge distillation: teachers, taps, KD heads."""

from .adapters import Connectors
from .box_kd import BoxKDHead
from .boxes_fusion import weighted_boxes_fusion
from .class_lists import class_index
from .detection_kd import DetectionKDHead
from .feature_kd import FeatureKDHead
from .fusion import TeacherFusion
from .kd_base import BaseKDHead
from .lessons import by_teacher, kd_losses
from .logit_kd import LogitKDHead
from .losses import CWDLoss, FeatureMSELoss, PKDLoss
from .preprocess import to_teacher_inputs
from .score_kd import ScoreKDHead
from .taps import Tapped, Taps, as_list, check_tap
from .teacher import Teacher
from .teachers import Teachers

__all__ = [
    'BaseKDHead',
    'BoxKDHead',
    'CWDLoss',
    'Connectors',
    'DetectionKDHead',
    'FeatureKDHead',
    'FeatureMSELoss',
    'LogitKDHead',
    'PKDLoss',
    'ScoreKDHead',
    'Tapped',
    'Taps',
    'Teacher',
    'TeacherFusion',
    'Teachers',
    'as_list',
    'by_teacher',
    'check_tap',
    'class_index',
    'kd_losses',
    'to_teacher_inputs',
    'weighted_boxes_fusion',
]
