"""Knowledge distillation from one or several teachers.

``recorder`` records outputs of student and teachers, ``step`` computes the KD
losses of one training step from them. ``teachers`` builds and runs teachers,
``heads`` compares their outputs with the student's by the divergences in
``losses``, and ``fusion`` makes one target of several teachers.
"""

from .batch_samples import as_samples
from .fusion.boxes import weighted_boxes_fusion
from .fusion.probabilities import TeacherFusion
from .heads.base import BaseKDHead
from .heads.boxes import BoxKDHead
from .heads.connectors import Connectors
from .heads.detections import DetectionKDHead
from .heads.features import FeatureKDHead
from .heads.logits import LogitKDHead
from .heads.scores import ScoreKDHead
from .losses.class_kl import ForwardKL
from .losses.features import (
    AttentionTransferLoss,
    CWDLoss,
    FeatureMSELoss,
    PKDLoss,
)
from .losses.learned_features import ACAMLoss, MGDLoss, ResidualLoss
from .losses.top_k_kl import TopKKL
from .losses.two_way_kl import BalancedKL, EntropyAwareKL
from .recorder import Recorded, Recorder, check_tap
from .step import by_teacher, kd_losses
from .teachers.class_mapping import class_index
from .teachers.collection import Teachers
from .teachers.preprocessing import to_teacher_inputs
from .teachers.teacher import Teacher

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
    'Recorded',
    'Recorder',
    'ResidualLoss',
    'ScoreKDHead',
    'Teacher',
    'TeacherFusion',
    'Teachers',
    'TopKKL',
    'as_samples',
    'by_teacher',
    'check_tap',
    'class_index',
    'kd_losses',
    'to_teacher_inputs',
    'weighted_boxes_fusion',
]
