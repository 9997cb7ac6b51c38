"""Balancers of the task loss against the distillation loss."""

from .base import BaseWeighting, total_loss
from .cagrad import CAGradWeighting
from .dwa import DWAWeighting
from .famo import FAMOWeighting
from .fixed import FixedWeighting
from .geometric_mean import GeometricMeanWeighting
from .gor import GoRWeighting
from .gradients import GradientStats, gradient_stats
from .gradnorm import GradNormWeighting
from .imtl_g import IMTLGWeighting
from .mgda import MGDAWeighting
from .pcgrad import PCGradWeighting
from .revised_uncertainty import RevisedUncertaintyWeighting
from .rlw import RLWWeighting
from .uncertainty import UncertaintyWeighting
from .uwso import UWSOWeighting

__all__ = [
    'BaseWeighting',
    'CAGradWeighting',
    'DWAWeighting',
    'FAMOWeighting',
    'FixedWeighting',
    'GeometricMeanWeighting',
    'GoRWeighting',
    'GradNormWeighting',
    'GradientStats',
    'IMTLGWeighting',
    'MGDAWeighting',
    'PCGradWeighting',
    'RLWWeighting',
    'RevisedUncertaintyWeighting',
    'UWSOWeighting',
    'UncertaintyWeighting',
    'gradient_stats',
    'total_loss',
]
