"""Detectors that learn from teachers: ``type='GoRDetector'`` of a config."""

from .gor_detector import GoRDetector, gor_class
from .gor_mixin import GoRMixin

__all__ = ['GoRDetector', 'GoRMixin', 'gor_class']
