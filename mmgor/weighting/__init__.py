"""Balancers: how much the task loss and the distillation loss count.

- ``gor``: the Game of Regularizer, with our equation. It has two trainable
  scalars (theta_task and theta_kd). ``fixed``: weights set by hand.
- ``balancers``: methods from the literature, one per file.
- ``base``: what a balancer is. Three base classes refine it:
  ``theta_weighting`` (trains two thetas), ``stateless_weighting`` (weights
  from this step's losses) and ``gradient_weighting`` (weights from this step's
  gradients).
- ``functional``: all equations, as pure functions.
- ``gradients``: measures the two losses' gradients at the shared features.
- ``theta_steps``: where the thetas move. ``GoRWeightHook`` calls it.
"""

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
