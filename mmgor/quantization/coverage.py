"""Which layers stay in float and why.

Logged when a module is wrapped and when training starts.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmgor.io.checkpoint import is_deployed
from mmgor.listing import listed
from mmgor.quantization.layers.quant_layers import (
    QUANTIZED_CLASSES,
    QuantLayerMixin,
)
from mmgor.quantization.layers.weights import weighted_layers, weights_of

#: A larger share of the weights in float is logged as a warning.
MUCH = 0.1
OVERRIDE = 'overrides'
SAMPLING = 'layers that tell where to sample'
ATTENTION = 'projections that nn.MultiheadAttention does not call'
NO_LAYER = 'embeddings and other parameters outside layers'


@dataclass
class FloatShare:
    """The layers that stay in float for one cause.

    Attributes:
        cause (str): The cause, in words.
        layers (list[str]): Paths of the layers.
        weights (float): Their share of all weights, 0 to 1.
        macs (float): Their share of all multiply-accumulates, 0 to 1.
    """

    cause: str
    layers: list[str]
    weights: float = 0.0
    macs: float = 0.0


def float_reason(layer: nn.Module) -> str:
    """Why a layer that ``is_quantizable`` refuses stays in float."""
    kind: Any = type(layer)
    if isinstance(layer, nn.MultiheadAttention) or kind is _PROJECTION:
        return ATTENTION
    if kind in QUANTIZED_CLASSES:
        return 'layers whose forward or weight was replaced'
    return f'class {kind.__name__} has no quantized form'


# The teacher of mmdet's own distillation (LAD).
_TEACHER = 'teacher_model.'
# Class of the linear whose weight nn.MultiheadAttention reads.
_PROJECTION = type(nn.MultiheadAttention(1, 1).out_proj)


def float_shares(
    model: nn.Module, macs: dict[str, int] | None = None
) -> list[FloatShare]:
    """What stays in float, one entry per cause, the largest first.

    Modules that only training needs
    (:data:`mmgor.io.checkpoint.TRAINING_ONLY_PREFIXES`, and teachers of
    mmdet's own distillation) are left out.

    Args:
        model (nn.Module): Model with quantized layers.
        macs (dict[str, int], optional): Multiply-accumulates by path, from
            :func:`~mmgor.quantization.layers.weights.counting_macs`.
    """
    sizes = _layer_sizes(model)
    every = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and '_quantizer.' not in name and _detects(name)
    )
    layers = weighted_layers(model)
    done = {n for n in sizes if isinstance(layers[n], QuantLayerMixin)}
    marked = {n for n in sizes if hasattr(layers[n], 'float_cause')}
    counts = macs or {}
    all_macs = sum(counts.get(name, 0) for name in sizes)
    shares: dict[str, FloatShare] = {}
    for name in [n for n in sizes if n not in done]:
        cause = getattr(layers[name], 'float_cause', None)
        cause = cause or f'not wrapped: {_unwrapped(name, done | marked)}'
        share = shares.setdefault(cause, FloatShare(cause, []))
        share.layers.append(name)
        share.weights += sizes[name] / every
        share.macs += counts.get(name, 0) / max(1, all_macs)
    rest = every - sum(sizes.values())
    if rest:
        shares[NO_LAYER] = FloatShare(NO_LAYER, [], rest / every)
    return sorted(shares.values(), key=lambda share: -share.weights)


def _layer_sizes(model: nn.Module) -> dict[str, int]:
    return {
        name: sum(weight.numel() for weight in weights_of(layer))
        for name, layer in weighted_layers(model).items()
        if _detects(name)
    }


def _detects(name: str) -> bool:
    return is_deployed(name) and not name.startswith(_TEACHER)


def _unwrapped(name: str, known: Iterable[str]) -> str:
    """Path of the largest module around ``name`` that has no layer of
    ``known`` inside."""
    names = name.split('.')
    for depth in range(1, len(names)):
        path = '.'.join(names[:depth])
        if not any(f'{other}.'.startswith(f'{path}.') for other in known):
            return path
    return name


def float_line(
    model: nn.Module, macs: dict[str, int] | None = None
) -> tuple[str, bool]:
    """One line that tells how much of a detector stays in float, and why.

    Args:
        model (nn.Module): The detector.
        macs (dict[str, int], optional): Multiply-accumulates by path, from
            :func:`~mmgor.quantization.layers.weights.counting_macs`.

    Returns:
        tuple[str, bool]: The line, and whether more than :data:`MUCH` of the
        weights or of the multiply-accumulates is in float.
    """
    shares = float_shares(model, macs)
    weights = sum(share.weights for share in shares)
    count = sum(share.macs for share in shares)
    both = f'{weights:.1%} of the weights'
    if macs:
        both += f' and {count:.1%} of the multiply-accumulates'
    causes = '; '.join(_describe(share, bool(macs)) for share in shares)
    line = f'In float: {both}' + (f' ({causes})' if shares else '')
    return line, max(weights, count) > MUCH


def _describe(share: FloatShare, with_macs: bool) -> str:
    macs = f' / {share.macs:.1%}' if with_macs else ''
    return f'{share.weights:.1%}{macs} {share.cause}'


def log_float_layers(module: nn.Module) -> None:
    """Log which layers of a newly wrapped module stay in float.

    Layers that ``overrides`` keeps in float are not listed. The line is a
    warning if the others hold more than :data:`MUCH` of the weights.
    """
    shares = [
        share
        for share in float_shares(module)
        if share.cause not in (OVERRIDE, NO_LAYER)
    ]
    weights = sum(share.weights for share in shares)
    if shares:
        print_log(
            f'{type(module).__name__}: {weights:.1%} of the weights stay in '
            f'float: {"; ".join(map(_names, shares))}.',
            logger='current',
            level=logging.WARNING if weights > MUCH else logging.INFO,
        )


def _names(share: FloatShare) -> str:
    return f'{share.cause}: {listed(share.layers)}'
