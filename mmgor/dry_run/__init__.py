"""The first steps of a training, and what they tell about the rest."""

from .run import dry_run

__all__ = ['dry_run']
