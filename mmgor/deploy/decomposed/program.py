"""``lower``: a frozen network with int8 activations.

The frozen network has the operators of ``export/onnx_ops``, which round in
float. Here they become torch's ``quantized_decomposed`` operators. The
converters of LiteRT and ExecuTorch turn them, with the layers between them,
into integer layers.
"""

from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from .graphs import (
    DEQUANTIZE,
    QUANTIZE,
    ROUND,
    WEIGHT,
    add_call,
    add_constant,
    constant,
    drop_unused,
    export,
    is_call,
    layer_of,
)
from .int8_grids import Int8Grid, int8_grid
from .nonnegative import nonnegative_nodes
from .norms import fold_norms

_decomposed = torch.ops.quantized_decomposed
_INT8 = (-128, 127, torch.int8)
_SYMMETRIC = (-127, 127, torch.int8)


class Weights(Enum):
    """How a lowered network holds its integer weights."""

    #: Float constants that are rounded to int8 and back, as LiteRT reads them.
    ROUNDED = 'rounded'
    #: int8 constants that are dequantized, as ExecuTorch reads them.
    INTEGERS = 'integers'


def lower(
    network: nn.Module, images: Tensor, weights: Weights
) -> tuple[Any, int]:
    """Lower a frozen network to a program of torch.export.

    Args:
        network (nn.Module): See :func:`lower_module`.
        images (Tensor): Of the shape that the program will take.
        weights (Weights): How the program holds its weights.

    Returns:
        tuple[torch.export.ExportedProgram, int]: The program, and the number
        of folded batch norms.

    Raises:
        ValueError: See :func:`lower_module`.
    """
    module, folded = lower_module(network, images, weights)
    return torch.export.export(module, (images,)), folded


@torch.no_grad()
def lower_module(
    network: nn.Module, images: Tensor, weights: Weights
) -> tuple[GraphModule, int]:
    """Lower a frozen network to int8, with its batch norms folded.

    Its grids keep their values, its weights their integers, so it computes
    what the frozen network does, apart from the rounding of float sums.

    Args:
        network (nn.Module): With the operators that :func:`.freeze` puts in.
        images (Tensor): Of the shape that the result will take.
        weights (Weights): How the result holds its weights.

    Returns:
        tuple[GraphModule, int]: The lowered network, and the number of folded
        batch norms.

    Raises:
        ValueError: If an activation has one scale per channel, if int8 can't
            hold its grid, or if there are deformable convolutions. The
            message names the layers.
    """
    module = export(network, images).module()
    _refuse_deform_convs(module)
    folded = fold_norms(module)
    nonnegative = nonnegative_nodes(module)
    known: dict[tuple[Any, Int8Grid], Node] = {}
    for node in list(module.graph.nodes):
        if is_call(node, ROUND):
            value, grid = node.args[0], _grid(module, node)
            if (value, grid) not in known:
                fresh = _lower_activation(
                    module, node, grid, value in nonnegative
                )
                # Rounding again to the same grid changes nothing.
                known[value, grid] = known[fresh, grid] = fresh
            node.replace_all_uses_with(known[value, grid])
        elif is_call(node, WEIGHT):
            _lower_weight(module, node, weights)
    drop_unused(module)
    return module, folded


def _refuse_deform_convs(module: GraphModule) -> None:
    layers = [
        layer_of(node)
        for node in module.graph.nodes
        if is_call(node, torch.ops.mmgor.deform_conv2d.default)
    ]
    if layers:
        raise ValueError(
            f'deformable convolutions in {", ".join(dict.fromkeys(layers))}: '
            'LiteRT and ExecuTorch do not have them; ONNX Runtime and '
            'OpenVINO do. Choose another backbone, neck or head, or '
            '--target x86.'
        )


def _lower_activation(
    module: GraphModule, node: Any, grid: Int8Grid, nonnegative: bool
) -> Node:
    rounded = _round(module, node.args[0], grid, node)
    low, high = grid.clipped_values(nonnegative)
    if low is None and high is None:
        return rounded
    # Between two equal roundings the bounds are integers as well.
    clipped = add_call(
        module, torch.ops.aten.clamp.default, (rounded, low, high), node
    )
    return _round(module, clipped, grid, node)


def _grid(module: GraphModule, node: Any) -> Int8Grid:
    _, scale, zero_point, qmin, qmax, _ = node.args
    steps, zeros = (constant(module, n) for n in (scale, zero_point))
    layer = layer_of(node)
    if steps.numel() > 1:
        raise ValueError(
            f'{layer} rounds its input with one scale per channel '
            f'({steps.numel()} of them); expected one scale per tensor, as '
            'integer convolutions need. Train without per_channel_depthwise.'
        )
    try:
        return int8_grid(steps.item(), int(zeros), qmin, qmax)
    except ValueError as error:
        raise ValueError(
            f'{layer} rounds to a grid that int8 can not hold: {error}. Train '
            'with a quantizer without offset, such as LSQQuantizer.'
        ) from error


def _round(
    module: GraphModule, value: Any, grid: Int8Grid, like: Node
) -> Node:
    """Quantize and dequantize a value."""
    step = (grid.scale, grid.zero_point, *_INT8)
    integers = add_call(
        module,
        QUANTIZE,
        (value, *step),
        like,
    )
    return add_call(
        module,
        DEQUANTIZE,
        (integers, *step),
        like,
    )


def _lower_weight(module: GraphModule, node: Any, weights: Weights) -> None:
    integers, scale = (constant(module, n) for n in node.args)
    channels = len(integers)
    step: tuple = (
        add_constant(module, scale.expand(channels).clone(), node),
        add_constant(module, torch.zeros(channels, dtype=torch.int64), node),
        0,
        *_SYMMETRIC,
    )
    if weights is Weights.INTEGERS:
        source = add_constant(module, integers, node)
    else:
        values = WEIGHT(integers, scale)
        source = add_call(
            module,
            _decomposed.quantize_per_channel.default,
            (add_constant(module, values, node), *step),
            node,
        )
    fresh = add_call(
        module,
        _decomposed.dequantize_per_channel.default,
        (source, *step),
        node,
    )
    node.replace_all_uses_with(fresh)
