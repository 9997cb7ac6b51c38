"""Finds the tensors of a graph that have no value below zero."""

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from .graphs import DEQUANTIZE, QUANTIZE, ROUND, constant, is_call

_aten = torch.ops.aten
_ALWAYS = (
    _aten.relu.default,
    _aten.relu6.default,
    _aten.sigmoid.default,
    _aten.hardsigmoid.default,
    _aten.softmax.int,
    _aten.abs.default,
)
_BOUNDED = (_aten.hardtanh.default, _aten.clamp.default)
_ARITHMETIC = (_aten.add.Tensor, _aten.mul.Tensor)
# Every value of their results is one of their inputs', a mean of some, or one
# rounded to a grid with zero.
_KEEPING = (
    _aten.max_pool2d.default,
    _aten.max_pool2d_with_indices.default,
    _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.upsample_nearest2d.vec,
    _aten.upsample_nearest2d.default,
    _aten.upsample_bilinear2d.vec,
    _aten.cat.default,
    _aten.slice.Tensor,
    _aten.view.default,
    _aten.reshape.default,
    _aten.flatten.using_ints,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.clone.default,
    operator.getitem,
    QUANTIZE,
    DEQUANTIZE,
)


def nonnegative_nodes(module: GraphModule) -> set[Node]:
    """The nodes whose tensors have no value below zero, whatever the input.

    Args:
        module (GraphModule): A frozen network, or a lowered one.

    Returns:
        set[Node]: Only those that the structure shows to be so: ReLU,
        sigmoid, unsigned grids, and pooling, resizing, joining, sums and
        products of such.
    """
    found: set[Node] = set()
    for node in module.graph.nodes:
        if _is_nonnegative(module, node, found):
            found.add(node)
    return found


def _is_nonnegative(module: GraphModule, node: Any, found: set[Node]) -> bool:
    if is_call(node, *_ALWAYS):
        return True
    if is_call(node, *_BOUNDED):
        low = node.args[1] if len(node.args) > 1 else None
        return isinstance(low, (int, float)) and low >= 0
    if is_call(node, ROUND):
        _, _, zero_point, qmin, *_ = node.args
        return node.args[0] in found or bool(
            (constant(module, zero_point).int() <= qmin).all()
        )
    if is_call(node, *_ARITHMETIC) and not node.kwargs:
        return all(
            part in found if isinstance(part, Node) else part >= 0
            for part in node.args
        )
    if is_call(node, *_KEEPING):
        return found.issuperset(node.all_input_nodes)
    return False
