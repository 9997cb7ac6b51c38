"""What each torch operator is in ncnn.

ncnn has no batch axis: axis 1 of torch, the channels, is its axis 0.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmgor.deploy.decomposed.graphs import arguments, constant, is_call

from .graph import NcnnGraph, float_bytes

_aten: Any = torch.ops.aten
_WIDTH, _HEIGHT = 3, 2
_ADD, _SUB, _MUL, _DIV = range(4)
_EXP, _LOG = 7, 8
_NEAREST = 1
# ``pad_mode`` of Pooling: the last window may not reach over the border.
_VALID = 1
_MAX, _AVERAGE = 0, 1
# A convolution's own activation.
_ACTIVATION, _RELU = 9, 1


class Unsupported(ValueError):
    """ncnn lacks an operator, or the writer does not know its form."""


class Values:
    """What the nodes of a program are: names of tensors, or constants.

    Args:
        graph (NcnnGraph): The graph that is written.
        module (GraphModule): The program.
    """

    def __init__(self, graph: NcnnGraph, module: GraphModule) -> None:
        self.graph = graph
        self.blobs: dict[Any, str] = {}
        self._module = module

    def blob(self, node: Any) -> str:
        """Name of the tensor that a node gives.

        Raises:
            Unsupported: If it is a constant or rounded.
        """
        if node not in self.blobs:
            raise Unsupported(
                f'reads {node}, which is a constant or was rounded'
            )
        return self.blobs[node]

    def constant(self, value: Any) -> Tensor:
        """A parameter or buffer.

        Raises:
            Unsupported: If it is computed.
        """
        if not _is_constant(value):
            raise Unsupported(f'reads {value}; expected a constant')
        return constant(self._module, value)

    def scalar(self, value: Any) -> float | None:
        """A number, or a constant of one element; None for a tensor."""
        if not isinstance(value, Node):
            return float(value)
        if not _is_constant(value):
            return None
        tensor = self.constant(value)
        return float(tensor) if tensor.numel() == 1 else None


def _is_constant(value: Any) -> bool:
    return isinstance(value, Node) and value.op == 'get_attr'


def _simple(kind: str, params: dict[int, Any] | None = None) -> Callable:
    def write(values: Values, node: Any) -> str:
        blob = values.blob(node.args[0])
        return values.graph.add(kind, [blob], dict(params or {}))

    return write


def _binary(operation: int) -> Callable:
    def write(values: Values, node: Any) -> str:
        first, second = node.args[:2]
        if node.kwargs.get('alpha', 1) != 1:
            raise Unsupported(f'has alpha={node.kwargs["alpha"]}')
        if operation in (_ADD, _MUL) and values.scalar(first) is not None:
            first, second = second, first
        scalar = values.scalar(second)
        if scalar is not None:
            params = {0: operation, 1: 1, 2: scalar}
            return values.graph.add('BinaryOp', [values.blob(first)], params)
        if operation == _MUL and _is_gate(second, first):
            return values.graph.add('Swish', [values.blob(first)])
        blobs = [values.blob(first), values.blob(second)]
        return values.graph.add('BinaryOp', blobs, {0: operation})

    return write


def _is_gate(gate: Any, gated: Any) -> bool:
    """Whether a factor is the sigmoid of the other one, as in SiLU."""
    return is_call(gate, _aten.sigmoid.default) and gate.args == (gated,)


def _leaky_relu(values: Values, node: Any) -> str:
    source, slope = arguments(node, 1, 0.01)
    return values.graph.add('ReLU', [values.blob(source)], {0: float(slope)})


def _relu(values: Values, node: Any) -> str:
    (source,) = node.args
    blob = values.blob(source)
    if is_call(source, _aten.conv2d.default) and len(source.users) == 1:
        values.graph.producer(blob).params[_ACTIVATION] = _RELU
        return blob
    return values.graph.add('ReLU', [blob])


def _clip(*defaults: float | None) -> Callable:
    def write(values: Values, node: Any) -> str:
        source, *bounds = arguments(node, 1, *defaults)
        params = {
            key: float(bound)
            for key, bound in enumerate(bounds)
            if bound is not None
        }
        return values.graph.add('Clip', [values.blob(source)], params)

    return write


def _concat(values: Values, node: Any) -> str:
    tensors, axis = arguments(node, 1, 0)
    axis %= node.meta['val'].dim()
    if axis == 0:
        raise Unsupported('joins along the batch axis')
    blobs = [values.blob(tensor) for tensor in tensors]
    return values.graph.add('Concat', blobs, {0: axis - 1})


def _slice(values: Values, node: Any) -> str:
    source, axis, start, end, step = arguments(node, 1, 0, None, None, 1)
    side = source.meta['val'].shape[axis]
    start, end = start or 0, side if end is None else min(end, side)
    blob = values.blob(source)
    if axis == 0 or min(start, end) < 0:
        raise Unsupported(f'takes {start}:{end} of axis {axis}')
    if (start, end) != (0, side):
        bounds = {9: (start,), 10: (end,), 11: (axis - 1,)}
        blob = values.graph.add('Crop', [blob], bounds)
    if step == 1:
        return blob
    if axis not in (_HEIGHT, _WIDTH):
        raise Unsupported(f'takes every {step}th channel')
    # Pooling of single pixels is a slice with a step.
    stride = (step, 1) if axis == _HEIGHT else (1, step)
    return _pool(values, blob, (1, 1), stride, (0, 0))


def _max_pool(values: Values, node: Any) -> str:
    source, kernel, stride, padding, dilation, ceil = arguments(
        node, 2, [], [0, 0], [1, 1], False
    )
    if ceil or max(dilation) > 1:
        raise Unsupported('pools with dilation or ceil_mode')
    sides = (_pair(side) for side in (kernel, stride or kernel, padding))
    return _pool(values, values.blob(source), *sides)


def _pool(
    values: Values, blob: str, kernel: tuple, stride: tuple, padding: tuple
) -> str:
    params = {0: _MAX, 5: _VALID}
    # The height has its key ten after the width's.
    for key, (height, width) in enumerate((kernel, stride, padding), 1):
        params |= {key: width, key + 10: height}
    return values.graph.add('Pooling', [blob], params)


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[-1])


def _global_average(values: Values, node: Any) -> str:
    source, size = node.args
    if _pair(size) != (1, 1):
        raise Unsupported(f'pools to a size of {size}')
    pooled = values.graph.add(
        'Pooling', [values.blob(source)], {0: _AVERAGE, 4: 1}
    )
    # It gives a vector; a convolution reads a map of one pixel.
    return values.graph.add('Reshape', [pooled], {0: 1, 1: 1, 2: -1})


def _upsample(values: Values, node: Any) -> str:
    height, width = node.meta['val'].shape[2:]
    params = {0: _NEAREST, 3: height, 4: width}
    return values.graph.add('Interp', [values.blob(node.args[0])], params)


def _group_norm(values: Values, node: Any) -> str:
    source, groups, gain, shift, epsilon, _ = arguments(
        node, 2, None, None, 1e-5, True
    )
    channels = source.meta['val'].shape[1]
    gains = values.constant(gain) if gain else torch.ones(channels)
    shifts = values.constant(shift) if shift else torch.zeros(channels)
    return values.graph.add(
        'GroupNorm',
        [values.blob(source)],
        {0: groups, 1: channels, 2: float(epsilon), 3: 1},
        float_bytes(gains) + float_bytes(shifts),
    )


def _same(values: Values, node: Any) -> str:
    if node.meta['val'].dtype != torch.float32:
        raise Unsupported(f'gives {node.meta["val"].dtype}')
    return values.blob(node.args[0])


#: The function that writes each operator: it adds layers to the graph and
#: returns the name of the result.
OPERATORS: dict[Any, Callable[[Values, Any], str]] = {
    _aten.relu.default: _relu,
    _aten.leaky_relu.default: _leaky_relu,
    _aten.sigmoid.default: _simple('Sigmoid'),
    _aten.silu.default: _simple('Swish'),
    _aten.hardsigmoid.default: _simple('HardSigmoid', {0: 1 / 6, 1: 0.5}),
    _aten.hardswish.default: _simple('HardSwish', {0: 1 / 6, 1: 0.5}),
    _aten.mish.default: _simple('Mish'),
    _aten.exp.default: _simple('UnaryOp', {0: _EXP}),
    _aten.log.default: _simple('UnaryOp', {0: _LOG}),
    _aten.add.Tensor: _binary(_ADD),
    _aten.sub.Tensor: _binary(_SUB),
    _aten.mul.Tensor: _binary(_MUL),
    _aten.div.Tensor: _binary(_DIV),
    _aten.clamp.default: _clip(None, None),
    _aten.hardtanh.default: _clip(-1.0, 1.0),
    _aten.relu6.default: _clip(0.0, 6.0),
    _aten.cat.default: _concat,
    _aten.slice.Tensor: _slice,
    _aten.max_pool2d.default: _max_pool,
    _aten.adaptive_avg_pool2d.default: _global_average,
    _aten.upsample_nearest2d.vec: _upsample,
    _aten.group_norm.default: _group_norm,
    _aten.to.dtype: _same,
    _aten._to_copy.default: _same,
}
