"""The one place that names mmdet's registries.

Everything is registered into mmdet's own registries, so that a stock config
with ``default_scope = 'mmdet'`` finds it without a prefix.
"""

from mmdet.registry import DATASETS, HOOKS, MODELS, RUNNERS

__all__ = ['DATASETS', 'HOOKS', 'MODELS', 'RUNNERS']
