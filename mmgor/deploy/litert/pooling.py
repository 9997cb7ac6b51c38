"""Pads what a max pooling reads with zeros, where that is the same."""

from typing import Any

import torch
from torch.fx import GraphModule

from mmgor.deploy.decomposed.graphs import add_call, arguments, is_call
from mmgor.deploy.decomposed.nonnegative import nonnegative_nodes

_aten = torch.ops.aten
_POOLS = (
    _aten.max_pool2d.default,
    _aten.max_pool2d_with_indices.default,
)


def pad_with_zeros(module: GraphModule) -> None:
    """Pad before max poolings of tensors that have no value below zero.

    LiteRT has no padding on both sides. So its converter pads with the
    smallest integer, by an operator that Ethos-U does not have. Zeros are the
    zero point, with which every device pads.

    Args:
        module (GraphModule): A lowered network. Changed in place.
    """
    nonnegative = nonnegative_nodes(module)
    for node in list(module.graph.nodes):
        if is_call(node, *_POOLS) and node.args[0] in nonnegative:
            _pad(module, node)
    module.recompile()


def _pad(module: GraphModule, node: Any) -> None:
    x, kernel, stride, padding, dilation, ceil = arguments(
        node, 2, [], [0, 0], [1, 1], False
    )
    stride, padding = _pair(stride or kernel), _pair(padding)
    # A stride of 1 needs no operator of its own.
    if max(padding) == 0 or max(stride) == 1 or ceil:
        return
    sides = [padding[1], padding[1], padding[0], padding[0]]
    padded = add_call(
        module, _aten.constant_pad_nd.default, (x, sides, 0.0), node
    )
    node.args = (padded, kernel, stride, [0, 0], dilation, ceil)


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * (2 // len(values))
