"""What stays in float, and why: said when a part is wrapped and at start."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmgor.io.checkpoint import is_deployed
from mmgor.quantization.layers.quant_layers import (
    QUANTIZED_CLASSES,
    QuantLayerMixin,
)
from mmgor.quantization.layers.weights import weighted_layers, weights_of

#: Larger shares of the weights in float are a warning.
MUCH = 0.1
OVERRIDE = 'overrides'
SAMPLING = 'where deformable layers sample'
ATTENTION = 'projections that nn.MultiheadAttention reads without a call'
NO_LAYER = 'embeddings and other parameters outside layers'
_SHOWN = 5


@dataclass
class FloatShare:
    """What stays in float for one cause.

    Attributes:
        cause (str): In words.
        layers (list[str]): Paths.
        weights (float): Share of all weights, 0 to 1.
        macs (float): Share of all multiply-accumulates, 0 to 1.
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
        return 'a forward or weight that something else put on the layer'
    return f'class {kind.__name__} has no quantized form'


# Linear layer whose weight nn.MultiheadAttention reads.
_PROJECTION = type(nn.MultiheadAttention(1, 1).out_proj)


def float_shares(
    model: nn.Module, macs: dict[str, int] | None = None
) -> list[FloatShare]:
    """What stays in float, by cause; the largest first.

    Args:
        model (nn.Module): With wrapped parts; what only training needs
            (:data:`mmgor.io.checkpoint.TRAINING_ONLY_PREFIXES`) is left out.
        macs (dict[str, int], optional): From ``counting_macs``.
    """
    sizes = _layer_sizes(model)
    every = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
        and '_quantizer.' not in name
        and is_deployed(name)
    )
    layers = weighted_layers(model)
    done = {n for n in sizes if isinstance(layers[n], QuantLayerMixin)}
    marked = {n for n in sizes if hasattr(layers[n], 'float_cause')}
    counts = macs or {}
    all_macs = sum(counts.get(name, 0) for name in sizes)
    parts: dict[str, FloatShare] = {}
    for name in [n for n in sizes if n not in done]:
        cause = getattr(layers[name], 'float_cause', None)
        cause = cause or f'not wrapped: {_unwrapped(name, done | marked)}'
        part = parts.setdefault(cause, FloatShare(cause, []))
        part.layers.append(name)
        part.weights += sizes[name] / every
        part.macs += counts.get(name, 0) / max(1, all_macs)
    rest = every - sum(sizes.values())
    if rest:
        parts[NO_LAYER] = FloatShare(NO_LAYER, [], rest / every)
    return sorted(parts.values(), key=lambda part: -part.weights)


def _layer_sizes(model: nn.Module) -> dict[str, int]:
    return {
        name: sum(weight.numel() for weight in weights_of(layer))
        for name, layer in weighted_layers(model).items()
        if is_deployed(name)
    }


def _unwrapped(name: str, known: Iterable[str]) -> str:
    """The largest module around ``name`` with no layer of ``known`` in it."""
    names = name.split('.')
    for depth in range(1, len(names)):
        path = '.'.join(names[:depth])
        if not any(f'{other}.'.startswith(f'{path}.') for other in known):
            return path
    return name


def float_line(
    model: nn.Module, macs: dict[str, int] | None = None
) -> tuple[str, bool]:
    """One line that says how much of a detector stays in float, and why.

    Args:
        model (nn.Module): The detector.
        macs (dict[str, int], optional): From ``counting_macs``.

    Returns:
        tuple[str, bool]: The line, and whether it is more than a tenth.
    """
    parts = float_shares(model, macs)
    weights = sum(part.weights for part in parts)
    count = sum(part.macs for part in parts)
    both = f'{weights:.1%} of the weights'
    if macs:
        both += f' and {count:.1%} of the multiply-accumulates'
    causes = '; '.join(_share(part, bool(macs)) for part in parts)
    line = f'In float: {both}' + (f' ({causes})' if parts else '')
    return line, max(weights, count) > MUCH


def _share(part: FloatShare, with_macs: bool) -> str:
    macs = f' / {part.macs:.1%}' if with_macs else ''
    return f'{part.weights:.1%}{macs} {part.cause}'


def log_float_layers(module: nn.Module) -> None:
    """Tell which layers of a part that was just wrapped stay in float.

    Not those that ``overrides`` chose: what else is left is a line, a
    warning above a tenth.
    """
    parts = [
        part
        for part in float_shares(module)
        if part.cause not in (OVERRIDE, NO_LAYER)
    ]
    share = sum(part.weights for part in parts)
    if parts:
        print_log(
            f'{type(module).__name__}: {share:.1%} of the weights stay in '
            f'float: {"; ".join(map(_names, parts))}.',
            logger='current',
            level=logging.WARNING if share > MUCH else logging.INFO,
        )


def _names(part: FloatShare) -> str:
    more = len(part.layers) - _SHOWN
    rest = f' and {more} more' if more > 0 else ''
    return f'{part.cause}: {", ".join(part.layers[:_SHOWN])}{rest}'
