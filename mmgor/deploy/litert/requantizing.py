"""Keeps the second of two roundings in a row; rounds some outputs twice."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from mmgor.deploy.decomposed.graphs import (
    DEQUANTIZE,
    QUANTIZE,
    add_call,
    add_constant,
    constant,
    is_call,
)

# Any grid that has a zero.
_GRID = (1.0, 0, -128, 127, torch.int8)


def keep_requantizations(module: GraphModule) -> None:
    """Add a zero between a rounding and one to another grid.

    LiteRT's converter takes two roundings in a row for one: a layer then
    reads integers of the first grid, and a concatenation is refused (measured
    with litert-torch 0.10.0). A sum has a grid of its own on both sides, and
    its kernel is exact; a copy to another grid rounds 2 % of the values to
    the wrong side (ai-edge-litert 2.3.0 with XNNPACK).

    Args:
        module (GraphModule): A lowered network. Changed in place.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, QUANTIZE):
            continue
        source = node.args[0]
        if is_call(source, DEQUANTIZE) and source.args[1:] != node.args[1:]:
            total = add_call(
                module,
                torch.ops.aten.add.Tensor,
                (source, _zero(module, node, _axes(module, source))),
                node,
            )
            node.replace_input_with(source, total)
    module.recompile()


def round_outputs_again(module: GraphModule) -> None:
    """Give each output that other operators read a rounding of its own.

    Rounding again to the same grid changes nothing. Without it, LiteRT's
    converter may leave a layer that reads such a tensor in float (measured
    with litert-torch 0.10.0).

    Args:
        module (GraphModule): A lowered network. Changed in place.
    """
    (end,) = module.graph.find_nodes(op='output')
    for source in end.all_input_nodes:
        if is_call(source, DEQUANTIZE) and len(source.users) > 1:
            step = source.args[1:]
            integers = add_call(module, QUANTIZE, (source, *step), end)
            again = add_call(module, DEQUANTIZE, (integers, *step), end)
            end.replace_input_with(source, again)
    module.recompile()


def _zero(module: GraphModule, node: Any, axes: int) -> Node:
    # One axis each: the converter reorders those of images.
    zero = add_constant(module, torch.zeros([1] * axes), node)
    rounded = add_call(module, QUANTIZE, (zero, *_GRID), node)
    return add_call(module, DEQUANTIZE, (rounded, *_GRID), node)


def _axes(module: GraphModule, node: Any) -> int:
    """The number of axes of a tensor; nodes that were added have its
    operand's."""
    while 'val' not in node.meta and node.args:
        node = node.args[0]
    if 'val' not in node.meta:
        return constant(module, node).dim()
    count: int = node.meta['val'].dim()
    return count
