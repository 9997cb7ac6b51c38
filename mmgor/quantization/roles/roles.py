"""Finds first layers, prediction layers and layers shared across levels.

The name of a layer says little about its role. Therefore a copy of the module
is run on zeros (``probe.py``), and roles follow from the path of the data. If
a module can't be run, names and order decide, and a log line says so.
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
from .probe_inputs import declared_levels, head_inputs, images


@dataclass
class HeadRoles:
    """The roles of a head's layers.

    Attributes:
        predictions (set[str]): Paths of layers that outputs come from. Some of
            them may have no quantized class.
        calls (dict[str, int]): Path of a layer -> number of its calls per
            forward pass, for heads that declare how many levels they read.
        passes (list[str]): Paths of the modules whose call is one pass over
            the levels: the head itself (''), or its stages.
    """

    predictions: set[str] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    passes: list[str] = field(default_factory=lambda: [''])


def first_layers(backbone: nn.Module) -> set[str]:
    """Paths of the layers that the image reaches first.

    There is one such layer, or one per branch that reads the image. Some of
    them may have no quantized class; no other layer takes their place.

    Args:
        backbone (nn.Module): A stock backbone.
    """
    best = Probe()
    if not find_layers(backbone):
        return set()
    for image in images(backbone):
        result = probe(backbone, False, image)
        best = max(result, best, key=lambda r: len(r.calls))
        # An error further on has nothing to do with the number of channels.
        if result.first and all(result.calls[n] for n in result.first):
            break
    if best.first:
        return set(best.first)
    name = next(iter(kernel_layers(backbone)))
    print_log(
        f'{type(backbone).__name__} could not be run on zeros to see which '
        f'layer the image reaches first ({_reason(best.error)}); the first '
        f'layer of its module tree is taken, {name!r}.',
        logger='current',
        level=logging.WARNING,
    )
    return {name}


def head_roles(head: nn.Module, config: dict[str, Any]) -> HeadRoles:
    """Find a head's prediction layers and the layers that its levels share.

    A layer predicts if an output comes from it through no other layer. There
    is one exception: if another layer reads that output as well, the output is
    a feature, unless the layer has the name of a prediction layer. Layers that
    the head's forward pass does not run (DETR's encoder calls some) are judged
    by name.

    Args:
        head (nn.Module): A stock head.
        config (dict[str, Any]): The arguments that it was built with.
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
            f'layers are for ({_reason(result.error)}): its prediction layers '
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
        _log_shared(head, [n for n in names if result.calls[n] > 1])
        return HeadRoles(predictions)
    return HeadRoles(predictions, dict(result.calls))


def _probe_head(head: nn.Module, config: dict[str, Any]) -> tuple[Probe, bool]:
    """The first run without an error, or else the longest one, and whether
    its inputs were feature maps."""
    runs = []
    # In training mode, heads return every output that has a loss, but some
    # need more arguments for it.
    for training, inputs in product((True, False), head_inputs(head, config)):
        by_level = any(isinstance(value, tuple) for value in inputs.values())
        runs.append((probe(head, training, **inputs), by_level))
        if runs[-1][0].error is None:
            return runs[-1]
    return max(runs, key=lambda run: run[0].calls.total())


def _stage_roles(stages: nn.ModuleList) -> HeadRoles:
    """Roles in a head that has no forward pass but stages that are heads."""
    roles = HeadRoles(passes=[])
    for index, stage in enumerate(stages):
        found, path = head_roles(stage, {}), f'stages.{index}'
        roles.predictions |= {f'{path}.{n}' for n in found.predictions}
        roles.calls |= {f'{path}.{n}': c for n, c in found.calls.items()}
        roles.passes.append(path)
    return roles


def _log_shared(head: nn.Module, shared: list[str]) -> None:
    if shared:
        print_log(
            f'{type(head).__name__} does not say how many levels it reads (by '
            'a prior generator, num_levels or strides). Layers that run '
            f'several times per forward pass have one input scale: {shared}.',
            logger='current',
        )


def _reason(error: Exception | None) -> str:
    """Why a run gave no roles, in one line."""
    if error is None:
        return 'no output comes from a layer'
    return ' '.join([type(error).__name__, *str(error).splitlines()[:1]])
