"""Balancers of the task loss against the distillation loss."""

from .base import BaseWeighting, total_loss
from .fixed import FixedWeighting
from .gor import GoRWeighting
from .gradients import gradient_stats

__all__ = [
    'BaseWeighting',
    'FixedWeighting',
    'GoRWeighting',
    'gradient_stats',
    'total_loss',
]
