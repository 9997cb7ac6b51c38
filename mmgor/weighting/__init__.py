"""Balancers of the task loss against the distillation loss."""

from .balancers.cagrad import CAGradWeighting
from .balancers.dwa import DWAWeighting
from .balancers.famo import FAMOWeighting
from .balancers.geometric_mean import GeometricMeanWeighting
from .balancers.gradnorm import GradNormWeighting
from .balancers.imtl_g import IMTLGWeighting
from .balancers.mgda import MGDAWeighting
from .balancers.pcgrad import PCGradWeighting
from .balancers.revised_uncertainty import RevisedUncertaintyWeighting
from .balancers.rlw import RLWWeighting
from .balancers.uncertainty import UncertaintyWeighting
from .balancers.uwso import UWSOWeighting
from .base import BaseWeighting, total_loss
from .fixed import FixedWeighting
from .gor import GoRWeighting
from .gradients import GradientStats, gradient_stats

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
