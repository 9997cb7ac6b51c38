"""Layers that tell a deformable one where to sample.

They stay in float: rounded offsets sample the wrong pixels. What they are for
shows in the module that owns them: its code, or that of a layer in it which
gets its offsets from outside, calls something deformable or ``grid_sample``.
"""

import inspect
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any

from mmdet.models.dense_heads import RepPointsHead
from torch import nn

# In a module that samples, children with such names.
_NAMES = ('offset', 'attention_weights')
# Functions that sample, of mmcv, torch, torchvision and others.
_FUNCTIONS = re.compile(r'deform\w*(conv|att|pool|sampl)|^grid_sample$', re.I)
# Their names do not say it.
_OTHERS: dict[type, tuple[str, ...]] = {
    RepPointsHead: ('reppoints_pts_init_out',)
}


def sampling_layers(module: nn.Module) -> set[str]:
    """Paths of the modules that tell where to sample, and of all in them.

    Args:
        module (nn.Module): A stock backbone, neck or head.
    """
    return {
        f'{owner}.{name}.{path}'.strip('.')
        for owner, parent in module.named_modules()
        for name, child in parent.named_children()
        if _tells_where(parent, name)
        for path, _ in child.named_modules()
    }


def _tells_where(parent: nn.Module, name: str) -> bool:
    for kind, names in _OTHERS.items():
        if isinstance(parent, kind) and name in names:
            return True
    return _is_offset(name) and any(_samples_by(parent))


def _is_offset(name: str) -> bool:
    return any(part in name for part in _NAMES)


def _samples_by(parent: nn.Module) -> Iterator[bool]:
    yield samples(type(parent))
    for module in parent.modules():
        own = any(_is_offset(name) for name, _ in module.named_children())
        yield samples(type(module)) and not own


def samples(kind: type) -> bool:
    """Whether a module class' own code samples at learned places."""
    return any(
        _FUNCTIONS.search(name)
        for base in inspect.getmro(kind)
        if issubclass(base, nn.Module) and base is not nn.Module
        for method, value in vars(base).items()
        # A constructor names what it builds, of whatever use.
        if 'init' not in method
        for name in _names(value)
    )


def _names(value: Any) -> Iterator[str]:
    """Names that a function's code uses, decorated or not."""
    code = getattr(inspect.unwrap(value), '__code__', None)
    return iter(code.co_names if isinstance(code, CodeType) else ())
