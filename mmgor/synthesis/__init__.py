"""Training images without data: from what a float network remembers."""

from .folder import SynthesisSpec, synthesize
from .optimize import optimize_images

__all__ = ['SynthesisSpec', 'optimize_images', 'synthesize']
