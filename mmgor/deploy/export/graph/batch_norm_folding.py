"""Folds batch norms into the integer weights of the layers before them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require

from .initializers import add_initializer

# Layer -> the place of its bias among its inputs.
_FOLDED = {'Conv': 2, 'ConvTranspose': 2, 'DeformConv': 3}
# Nodes between the weights and a grouped transposed convolution.
_SHAPING = ('Reshape', 'Transpose')
# Smallest scale of weights, as a share of the bias.
_SMALLEST = 2.0**-18


def fold_batch_norm(
    integers: NDArray,
    scale: NDArray,
    bias: NDArray,
    norm: tuple[NDArray, ...],
    epsilon: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """Fold a batch norm into quantized weights, without rounding them again.

    With ``g = gamma / sqrt(var + eps)`` the output ``g (s q x + b - mean) +
    beta`` equals ``(s |g|) (q sign(g)) x + g (b - mean) + beta``. The
    integers only change their sign, which the symmetric range allows.

    Integer kernels store the bias as a multiple of the scale (times that of
    the input) in 32 bits. So a scale has at least ``2**-18`` of the bias.
    Where gamma is so small that this is more than ``s |g|``, the weights
    hardly matter, and they are rounded again.

    Args:
        integers (NDArray): Weights; the first axis has C output channels.
        scale (NDArray): Shape () or (C, ).
        bias (NDArray): Shape (C, ).
        norm (tuple): gamma, beta, mean and variance, shape (C, ) each.
        epsilon (float): Epsilon of the batch norm.

    Returns:
        tuple[NDArray, NDArray, NDArray]: Integers, scale of shape (C, ) and
        bias of shape (C, ). Where gamma is 0, the integers are 0. A scale is
        above 0.
    """
    gamma, beta, mean, variance = (part.astype(np.float64) for part in norm)
    gain = gamma / np.sqrt(variance + epsilon)
    shifted = (bias - mean) * gain + beta
    scaled = np.maximum(np.abs(gain) * scale, np.abs(shifted) * _SMALLEST)
    scaled = np.where(scaled == 0, 1.0, scaled)
    # 1 or -1, but for the smallest gains.
    factor = (gain * scale / scaled).reshape(-1, *[1] * (integers.ndim - 1))
    flipped = np.rint(integers * factor).astype(integers.dtype)
    return flipped, scaled.astype(np.float32), shifted.astype(np.float32)


def fold_norms(graph: Any) -> int:
    """Fold every batch norm that is the only reader of a quantized
    convolution's output.

    Args:
        graph (onnx_ir.Graph): Changed in place.

    Returns:
        int: Number of folded batch norms.
    """
    count = 0
    for norm in list(graph):
        if norm.op_type != 'BatchNormalization':
            continue
        conv = norm.inputs[0].producer()
        if conv is None or conv.op_type not in _FOLDED:
            continue
        if (
            len(conv.outputs[0].uses()) > 1
            or conv.outputs[0].is_graph_output()
        ):
            continue
        weight = _dequantized_weight(conv)
        if weight is not None:
            _fold(graph, conv, weight, norm)
            count += 1
    return count


def _dequantized_weight(conv: Any) -> Any:
    """The DequantizeLinear that gives a convolution's weight, or None."""
    node = conv.inputs[1].producer()
    while node is not None and node.op_type in _SHAPING:
        node = node.inputs[0].producer()
    return (
        node
        if node is not None and node.op_type == 'DequantizeLinear'
        else None
    )


def _fold(graph: Any, conv: Any, weight: Any, norm: Any) -> None:
    parameters = tuple(_array(value) for value in norm.inputs[1:5])
    place = _FOLDED[conv.op_type]
    has_bias = len(conv.inputs) > place and conv.inputs[place] is not None
    bias = (
        _array(conv.inputs[place])
        if has_bias
        else np.zeros(len(parameters[0]), np.float32)
    )
    integers, scale, shift = fold_batch_norm(
        _array(weight.inputs[0]),
        _array(weight.inputs[1]),
        bias,
        parameters,
        norm.attributes['epsilon'].as_float(),
    )
    name = conv.outputs[0].name
    fresh = [
        add_initializer(graph, integers, f'{name}.weight_integers'),
        add_initializer(graph, scale, f'{name}.weight_scale'),
    ]
    conv.resize_inputs(max(place + 1, len(conv.inputs)))
    conv.replace_input_with(1, _copy_path(graph, conv, weight, fresh))
    conv.replace_input_with(
        place, add_initializer(graph, shift, f'{name}.bias')
    )
    ir = require('onnx_ir')
    ir.convenience.replace_all_uses_with(
        norm.outputs[0], conv.outputs[0], replace_graph_outputs=True
    )
    graph.remove(norm, safe=True)


def _copy_path(graph: Any, conv: Any, weight: Any, fresh: list) -> Any:
    """Copy the nodes from a weight to its convolution, for other integers and
    scales. The old nodes stay for other convolutions: a head may share one
    across levels and have one batch norm per level."""
    path = [conv.inputs[1].producer()]
    while path[-1] is not weight:
        path.append(path[-1].inputs[0].producer())
    ir = require('onnx_ir')
    inputs = fresh
    for node in reversed(path):
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs=[*inputs, *node.inputs[len(inputs) :]],
            attributes=list(node.attributes.values()),
        )
        graph.insert_before(conv, copy)
        inputs = [copy.outputs[0]]
    return inputs[0]


def _array(value: Any) -> NDArray:
    return value.const_value.numpy()
