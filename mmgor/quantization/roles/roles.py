"""First layers, prediction layers and shared layers, seen in a run.

Names tell little of what a layer is for. So a copy of the module is run on
zeros (:mod:`.probe`), and roles follow from where its data goes. Where a
module can not be run, names and order decide, and a line says so.
"""

import logging
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmgor.quantization.convert import find_layers
from mmgor.quantization.policy import is_prediction_layer, prediction_layers

from .probe import Probe, kernel_layers, probe
from .probe_inputs import declared_levels, head_inputs

# Of the images that a backbone is run on. Most take the small one; some have
# embeddings of positions for one size.
_SIDES = (64, 224)
_CHANNELS = (3, *range(1, 17))


@dataclass
class HeadRoles:
    """What the layers of a head are for.

    Attributes:
        predictions (set[str]): Layers that outputs come from. Some of them
            may be of a kind that can not be quantized.
        calls (dict[str, int]): Layer -> its calls a pass, for heads that say
            how many levels they read.
        passes (list[str]): Modules whose call is one pass over the levels:
            the head itself, '', or its stages.
    """

    predictions: set[str] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    passes: list[str] = field(default_factory=lambda: [''])


def first_layers(backbone: nn.Module) -> set[str]:
    """Layers that the image reaches first: one, or one a branch.

    Some of them may be of a kind that can not be quantized; then no other
    layer takes their place.

    Args:
        backbone (nn.Module): A stock backbone.
    """
    best = Probe()
    if not find_layers(backbone):
        return set()
    parameter = next(backbone.parameters())
    for side, channels in product(_SIDES, _CHANNELS):
        image = parameter.new_zeros(1, channels, side, side)
        result = probe(backbone, False, image)
        best = max(result, best, key=lambda r: len(r.calls))
        # An error further on has other reasons than the image's channels.
        if result.first and all(result.calls[n] for n in result.first):
            break
    if best.first:
        return set(best.first)
    name = next(iter(kernel_layers(backbone)))
    print_log(
        f'{type(backbone).__name__} could not be run on zeros to see which '
        f'layer the image reaches first ({_text(best.error)}); {name!r} is '
        'taken, the first of its module tree.',
        logger='current',
        level=logging.WARNING,
    )
    return {name}


def head_roles(head: nn.Module, config: dict[str, Any]) -> HeadRoles:
    """What predicts in a head, and what its levels share.

    A layer predicts if an output comes from it through no other layer. Not
    so if the head returns what another of its layers reads as well, which is
    a feature, unless mmdet's names say that it predicts. Layers that a
    pass does not run (a DETR's encoder calls them) are found by name.

    Args:
        head (nn.Module): A stock head.
        config (dict[str, Any]): Its arguments.
    """
    names = list(find_layers(head))
    if not names:
        return HeadRoles()
    result, by_level = _probe_head(head, config)
    stages = getattr(head, 'stages', None)
    if result.error is not None and isinstance(stages, nn.ModuleList):
        return _stage_roles(stages)
    if result.error is not None or not result.last | result.passed_on:
        print_log(
            f'{type(head).__name__} could not be run on zeros to see what its '
            f'layers are for ({_text(result.error)}): its prediction layers '
            'are found by name, and each layer has one input scale.',
            logger='current',
            level=logging.WARNING,
        )
        return HeadRoles(prediction_layers(names))
    named = set(filter(is_prediction_layer, result.passed_on))
    idle = [name for name in names if not result.calls[name]]
    predictions = result.last | named | prediction_layers(idle)
    if not by_level:
        return HeadRoles(predictions)
    if declared_levels(head) is None:
        _tell_shared(head, [n for n in names if result.calls[n] > 1])
        return HeadRoles(predictions)
    return HeadRoles(predictions, dict(result.calls))


def _probe_head(head: nn.Module, config: dict[str, Any]) -> tuple[Probe, bool]:
    """The first run without an error, or the longest; if on feature maps."""
    runs = []
    # In training heads return all that has a loss, but some need more for it.
    for training, inputs in product((True, False), head_inputs(head, config)):
        by_level = any(isinstance(value, tuple) for value in inputs.values())
        runs.append((probe(head, training, **inputs), by_level))
        if runs[-1][0].error is None:
            return runs[-1]
    return max(runs, key=lambda run: run[0].calls.total())


def _stage_roles(stages: nn.ModuleList) -> HeadRoles:
    """Of a head that has no pass of its own, but stages that are heads."""
    roles = HeadRoles(passes=[])
    for index, stage in enumerate(stages):
        found, path = head_roles(stage, {}), f'stages.{index}'
        roles.predictions |= {f'{path}.{n}' for n in found.predictions}
        roles.calls |= {f'{path}.{n}': c for n, c in found.calls.items()}
        roles.passes.append(path)
    return roles


def _tell_shared(head: nn.Module, shared: list[str]) -> None:
    if shared:
        print_log(
            f'{type(head).__name__} does not say how many levels it reads (by '
            'a prior generator, num_levels or strides), so that layers which '
            f'run several times a pass have one input scale: {shared}.',
            logger='current',
        )


def _text(error: Exception | None) -> str:
    """Why nothing was seen, in one line."""
    if error is None:
        return 'no output comes from a layer'
    return ' '.join([type(error).__name__, *str(error).splitlines()[:1]])
