"""Generated data."""

from .scenes import SceneSpec, generate_scenes

__all__ = ['SceneSpec', 'generate_scenes']
