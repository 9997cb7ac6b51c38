"""Knowledge distillation: teachers, taps, KD heads."""

from .adapters import Connectors
from .box_kd import BoxKDHead
from .boxes_fusion import weighted_boxes_fusion
from .class_lists import class_index
from .class_losses import BalancedKL, EntropyAwareKL, ForwardKL, TopKKL
from .detection_kd import DetectionKDHead
from .feature_kd import FeatureKDHead
from .fusion import TeacherFusion
from .kd_base import BaseKDHead
from .lessons import by_teacher, kd_losses
from .logit_kd import LogitKDHead
from .losses import (
    AttentionTransferLoss,
    CWDLoss,
    FeatureMSELoss,
    PKDLoss,
)
from .preprocess import to_teacher_inputs
from .score_kd import ScoreKDHead
from .taps import Tapped, Taps, as_list, check_tap
from .teacher import Teacher
from .teachers import Teachers
from .trainable_losses import ACAMLoss, MGDLoss, ResidualLoss

__all__ = [
    'ACAMLoss',
    'AttentionTransferLoss',
    'BalancedKL',
    'BaseKDHead',
    'BoxKDHead',
    'CWDLoss',
    'Connectors',
    'DetectionKDHead',
    'EntropyAwareKL',
    'FeatureKDHead',
    'FeatureMSELoss',
    'ForwardKL',
    'LogitKDHead',
    'MGDLoss',
    'PKDLoss',
    'ResidualLoss',
    'ScoreKDHead',
    'Tapped',
    'Taps',
    'Teacher',
    'TeacherFusion',
    'Teachers',
    'TopKKL',
    'as_list',
    'by_teacher',
    'check_tap',
    'class_index',
    'kd_losses',
    'to_teacher_inputs',
    'weighted_boxes_fusion',
]
