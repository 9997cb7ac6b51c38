"""Detectors that learn from teachers."""

from .gor_detector import GoRDetector, GoRMixin, gor_class

__all__ = ['GoRDetector', 'GoRMixin', 'gor_class']
