"""Converts a frozen network to an ExecuTorch program for XNNPACK."""

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from mmgor.deploy.decomposed.graphs import (
    DEQUANTIZE,
    add_call,
    add_constant,
    constant,
    export,
    is_call,
    layer_of,
)
from mmgor.deploy.decomposed.program import Weights, lower
from mmgor.deploy.optional_imports import require
from mmgor.listing import listed

_aten = torch.ops.aten
_WITH_BIAS = (
    _aten.conv2d.default,
    _aten.conv_transpose2d.input,
    _aten.linear.default,
)
_BIAS = 2


def convert(network: nn.Module, images: Tensor) -> tuple[bytes, int]:
    """Convert a frozen network.

    Args:
        network (nn.Module): With the operators that :func:`.freeze` puts in.
        images (Tensor): Of the shape that the file will take.

    Returns:
        tuple[bytes, int]: The program, and the number of folded batch norms.

    Raises:
        ValueError: If int8 can't hold a grid, or a layer's result is not
            rounded.
    """
    require('executorch.exir')
    partitioner = require(
        'executorch.backends.xnnpack.partition.xnnpack_partitioner'
    )
    lowered, folded = lower(network, images, Weights.INTEGERS)
    module = lowered.module()
    separate_readers(module)
    separate_biases(module)
    edge = require('executorch.exir').to_edge_transform_and_lower(
        export(module, images), partitioner=[partitioner.XnnpackPartitioner()]
    )
    _refuse_unrounded(edge.exported_program().graph)
    program: bytes = edge.to_executorch().buffer
    return program, folded


def _refuse_unrounded(graph: Graph) -> None:
    """Refuse a program with integer weights that XNNPACK did not take."""
    layers = [
        layer_of(reader)
        for node in graph.nodes
        if 'dequantize_per_channel' in str(node.target)
        for reader in node.users
    ]
    if layers:
        raise ValueError(
            f'XNNPACK can not run {listed(list(dict.fromkeys(layers)))} in '
            'integers: XNNPACK does not have such a layer, or what another '
            'operator reads of it is not rounded. Expected a model trained '
            'with quant=dict(target="xnnpack") that has no norm but batch '
            'norm behind a layer (group norm reads floats). Choose '
            'norm_cfg=dict(type="BN"), or write an .onnx file.'
        )


def separate_readers(module: GraphModule) -> None:
    """Give every reader of a rounded tensor a dequantize of its own.

    XNNPACK takes an operator together with the dequantize before it, so one
    of two readers would be left without.

    Args:
        module (GraphModule): Changed in place.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, DEQUANTIZE):
            continue
        for reader in list(node.users)[1:]:
            copy = add_call(module, node.target, node.args, reader)
            copy.meta = dict(node.meta)
            reader.replace_input_with(node, copy)
    module.graph.lint()
    module.recompile()


def separate_biases(module: GraphModule) -> None:
    """Give every layer a bias of its own.

    XNNPACK stores a bias as integers, in steps of the layer's input times
    those of its weight. A bias that a head shares across levels would have
    the steps of the first level everywhere.

    Args:
        module (GraphModule): Changed in place.
    """
    seen = set()
    for node in list(module.graph.nodes):
        if not is_call(node, *_WITH_BIAS) or len(node.args) <= _BIAS:
            continue
        bias = node.args[_BIAS]
        if not isinstance(bias, Node) or bias.op != 'get_attr':
            continue
        if bias.target in seen:
            copy = constant(module, bias).clone()
            node.update_arg(_BIAS, add_constant(module, copy, node))
        seen.add(bias.target)
    module.graph.lint()
    module.recompile()
