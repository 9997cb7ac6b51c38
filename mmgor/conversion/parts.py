"""Finds the parts of a detector's config that a Quant wrapper can take."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from mmdet.models.detectors import BaseDetector
from torch import nn

from mmgor.io.config_reader import type_name
from mmgor.quantization.convert import find_layers
from mmgor.registry import MODELS, find

#: Keys of a model that are left alone: what they hold is no part of the
#: network that is deployed, or has rules of its own.
OTHERS = ('teacher', 'language_model', 'data_preprocessor', 'tracker', 'reid')
#: Wrapper -> its argument that names the stock module.
ARGUMENTS = {
    'QuantBackbone': 'backbone',
    'QuantNeck': 'neck',
    'QuantHead': 'head',
}
_ORDER = {wrapper: i for i, wrapper in enumerate(ARGUMENTS)}


@dataclass(frozen=True)
class Part:
    """A backbone, neck or head in a model's config.

    Attributes:
        keys (tuple[str, ...]): Where it is, e.g. ('roi_head', 'bbox_head').
        wrapper (str): The registered wrapper that takes it.
        wrapped (tuple[bool, ...]): For each module there, whether it has
            layers to quantize. One entry, unless the config has a list.
        listed (bool): Whether the config has a list of modules there.
    """

    keys: tuple[str, ...]
    wrapper: str
    wrapped: tuple[bool, ...] = (True,)
    listed: bool = False

    @property
    def path(self) -> str:
        """The place as text, e.g. 'roi_head.bbox_head'."""
        return '.'.join(self.keys)


def detector_class(model: Any) -> type[BaseDetector]:
    """The class of a config's detector.

    Args:
        model (dict): Config of the model.

    Raises:
        ValueError: If it is no detector of mmdet's, or a student already.
    """
    found = find(model.get('type'))
    if isinstance(found, type) and issubclass(found, BaseDetector):
        return found
    name = type_name(model) or repr(model.get('type'))
    if name == 'GoRDetector':
        raise ValueError(
            'expected the config of a float detector, got a student '
            '(GoRDetector). Change its quant=dict(...), teachers or kd_heads '
            'by hand, or convert the config that it is based on.'
        )
    inside = model.get('detector')
    hint = (
        f' It has a detector inside, {type_name(inside)}: convert the config '
        'of that one.'
        if isinstance(inside, dict)
        else ''
    )
    raise ValueError(
        f'expected the config of a detector, such as RetinaNet or YOLOX, got '
        f'model=dict(type={name!r}), which is not one.{hint}'
    )


def find_parts(model: dict, built: nn.Module) -> list[Part]:
    """The parts of a detector that have layers to quantize.

    Args:
        model (dict): Config of a float detector.
        built (nn.Module): The detector itself.

    Returns:
        list[Part]: Backbones, necks, heads.
    """
    parts = [_checked(part, model, built) for part in _candidates(model, ())]
    found = [part for part in parts if any(part.wrapped)]
    return sorted(found, key=lambda part: _ORDER[part.wrapper])


def module_configs(model: dict, part: Part) -> list[dict]:
    """The configs of the modules of a part, one unless they are a list."""
    value: Any = model
    for key in part.keys:
        value = value[key]
    return _modules(value)


def _checked(part: Part, model: dict, built: nn.Module) -> Part:
    """The part with what is known of its modules' layers."""
    try:
        modules = [built.get_submodule(part.path)]
    except AttributeError:  # such as the student inside of a SoftTeacher
        return replace(part, wrapped=_built_alone(model, part))
    if part.listed and len(modules) == 1:
        modules = [*modules[0].children()]
    layers = tuple(bool(find_layers(module)) for module in modules)
    return replace(part, wrapped=layers)


def _built_alone(model: dict, part: Part) -> tuple[bool, ...]:
    """Whether a part's modules have layers, if the detector has another name
    for them."""
    try:
        configs = deepcopy(module_configs(model, part))
        modules = [MODELS.build(config) for config in configs]
    except Exception:  # the detector may add arguments
        return (True,) * len(module_configs(model, part))
    return tuple(bool(find_layers(module)) for module in modules)


def _candidates(model: dict, above: tuple[str, ...]) -> Iterator[Part]:
    for key, value in model.items():
        if key.startswith(OTHERS) or not _modules(value):
            continue
        keys = (*above, key)
        if key in ('backbone', 'neck'):
            yield Part(
                keys, f'Quant{key.title()}', listed=isinstance(value, list)
            )
        elif isinstance(value, dict) and any(_candidates(value, keys)):
            yield from _candidates(value, keys)
        elif key.endswith('_extractor'):  # it gives features, as a neck does
            yield Part(keys, 'QuantNeck', listed=isinstance(value, list))
        elif key.endswith('_head'):
            yield Part(keys, 'QuantHead', listed=isinstance(value, list))


def _modules(value: Any) -> list[dict]:
    """The module configs at one place: none, one, or those of a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [v for v in values if isinstance(v, dict) and 'type' in v]
