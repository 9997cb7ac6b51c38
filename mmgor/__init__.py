"""Quantization-aware training and distillation for MMDetection.

Importing mmgor registers its modules in mmdet's registries. A config imports
it with ``custom_imports = dict(imports=['mmgor'])``.
"""

from .compat import (
    allow_mmengine_checkpoints,
    check_versions,
    silence_known_noise,
)
from .version import __version__

silence_known_noise()
check_versions()
allow_mmengine_checkpoints()

from . import (
    datasets,
    detectors,
    distillation,
    hooks,
    loops,
    optim_wrapper,
    quantization,
    weighting,
)
from .io.checkpoint_reader import guard_local_files
from .registry import add_scope, share_names

guard_local_files()
add_scope()
share_names()

__all__ = [
    '__version__',
    'datasets',
    'detectors',
    'distillation',
    'hooks',
    'loops',
    'optim_wrapper',
    'quantization',
    'weighting',
]
