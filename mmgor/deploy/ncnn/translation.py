"""``to_ncnn``: translates a frozen network to an ncnn graph."""

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from mmgor.deploy.decomposed.graphs import (
    NORM,
    ROUND,
    WEIGHT,
    drop_unused,
    export,
    layer_of,
)
from mmgor.deploy.decomposed.nonnegative import nonnegative_nodes
from mmgor.deploy.decomposed.norms import fold_norms

from .convolutions import (
    IntegerWeight,
    Rounded,
    round_input,
    write_convolution,
)
from .graph import NcnnGraph, float_bytes
from .operators import OPERATORS, Unsupported, Values

_aten: Any = torch.ops.aten
_CHECK = _aten._assert_tensor_metadata.default


@torch.no_grad()
def to_ncnn(
    network: nn.Module, images: Tensor, names: list[str]
) -> tuple[NcnnGraph, int]:
    """Translate a frozen network, with its batch norms folded.

    Args:
        network (nn.Module): Takes images and gives a flat list of tensors;
            its quantizers are frozen (see :func:`.freeze`).
        images (Tensor): Shape (1, C, H, W), the size of the file.
        names (list[str]): Names of the outputs.

    Returns:
        tuple[NcnnGraph, int]: The graph, whose input is named 'images', and
        the number of folded batch norms.

    Raises:
        ValueError: If ncnn lacks an operator or a grid; the message names
            its module.
    """
    module = export(network, images).module()
    folded = fold_norms(module)
    drop_unused(module)
    channels, height, width = images.shape[1:]
    graph = NcnnGraph('images', (channels, height, width))
    writer = _Writer(module, graph)
    for node in module.graph.nodes:
        try:
            writer.write(node)
        except Unsupported as error:
            raise ValueError(
                f'ncnn can not have {node.target} of {layer_of(node)}: it '
                f'{error}. Choose another backbone, neck or head, or another '
                'target.'
            ) from error
    (results,) = module.graph.output_node().args
    blobs = map(writer.values.blob, results)
    graph.outputs = dict(zip(names, blobs, strict=True))
    return graph, folded


class _Writer:
    """Writes the nodes of a program one by one."""

    def __init__(self, module: GraphModule, graph: NcnnGraph) -> None:
        self.values = Values(graph, module)
        self._nonnegative = nonnegative_nodes(module)
        self._rounded: dict[Any, Rounded] = {}
        self._weights: dict[Any, IntegerWeight] = {}

    def write(self, node: Any) -> None:
        values, target = self.values, node.target
        if node.op == 'placeholder':
            values.blobs[node] = 'images'
        elif node.op != 'call_function' or target is _CHECK:
            return
        elif target is ROUND:
            self._rounded[node] = self._round(*node.args)
        elif target is WEIGHT:
            parts = (values.constant(part).numpy() for part in node.args)
            self._weights[node] = IntegerWeight(*parts)
        elif target is _aten.conv2d.default:
            values.blobs[node] = self._convolution(node)
        elif target is NORM:
            values.blobs[node] = self._norm(node)
        elif target is operator.getitem:
            values.blobs[node] = values.blob(node.args[0])
        elif target in OPERATORS:
            values.blobs[node] = OPERATORS[target](values, node)
        else:
            raise Unsupported('is none of the operators that can be written')

    def _round(
        self,
        source: Any,
        scale: Any,
        zero_point: Any,
        qmin: int,
        qmax: int,
        _: int,
    ) -> Rounded:
        values = self.values
        return round_input(
            values.graph,
            values.blob(source),
            values.constant(scale).numpy(),
            values.constant(zero_point).numpy(),
            (qmin, qmax),
            source in self._nonnegative,
        )

    def _convolution(self, node: Any) -> str:
        source, weight = node.args[:2]
        values = self.values
        return write_convolution(
            values,
            node,
            self._rounded.get(source) or values.blob(source),
            self._weights.get(weight) or values.constant(weight).numpy(),
        )

    def _norm(self, node: Any) -> str:
        """A batch norm that no convolution could take."""
        values = self.values
        gain, shift, mean, variance = map(values.constant, node.args[1:5])
        data = map(float_bytes, (gain, mean, variance, shift))
        return values.graph.add(
            'BatchNorm',
            [values.blob(node.args[0])],
            {0: len(mean), 1: float(node.args[-1])},
            b''.join(data),
        )
