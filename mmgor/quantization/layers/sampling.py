"""Finds layers that tell a deformable layer where to sample.

They stay in float, because rounded offsets sample the wrong pixels. Such a
layer is recognised by its name and by the module around it: the code of that
module, or of a layer inside that gets its offsets as an argument, calls a
deformable function or ``grid_sample``.
"""

import inspect
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any

from mmdet.models.dense_heads import RepPointsHead
from torch import nn

# Parts of the names of such layers.
_NAMES = ('offset', 'attention_weights')
# Functions that sample, in mmcv, torch, torchvision and others.
_FUNCTIONS = re.compile(r'deform\w*(conv|att|pool|sampl)|^grid_sample$', re.I)
# Such layers with other names.
_OTHERS: dict[type, tuple[str, ...]] = {
    RepPointsHead: ('reppoints_pts_init_out',)
}


def sampling_layers(module: nn.Module) -> set[str]:
    """Paths of the modules that tell where to sample, with their children.

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
    """Whether the code of a module class samples at learned positions."""
    return any(
        _FUNCTIONS.search(name)
        for base in inspect.getmro(kind)
        if issubclass(base, nn.Module) and base is not nn.Module
        for method, value in vars(base).items()
        # A constructor only names what it builds.
        if 'init' not in method
        for name in _names(value)
    )


def _names(value: Any) -> Iterator[str]:
    """Names that the code of a function uses, without its decorators."""
    code = getattr(inspect.unwrap(value), '__code__', None)
    return iter(code.co_names if isinstance(code, CodeType) else ())
