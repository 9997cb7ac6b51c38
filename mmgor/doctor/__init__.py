"""Checks of the environment, a config, its checkpoints and its data.

- ``checks``: all of them, one after the other
- ``environment``, ``operations``: packages, compiled operators, GPU
- ``model``, ``data``, ``disk``: what a config names
- ``findings``: what a check found
"""

from .checks import examine
from .findings import ERROR, OK, WARNING, Finding, summary

__all__ = ['ERROR', 'OK', 'WARNING', 'Finding', 'examine', 'summary']
