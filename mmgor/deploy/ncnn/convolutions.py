"""Convolutions with int8 weights and the rounding of their inputs.

An ncnn convolution rounds its own input: to ``round(x / scale)``, limited to
-127 and 127. So a trained grid is kept if its zero point is 0 and its integers
fit; a Clip of the values before limits smaller ranges.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.decomposed.graphs import arguments

from .graph import NcnnGraph, float_bytes, weight_bytes
from .operators import Unsupported, Values

#: Largest integer of an activation or a weight in ncnn.
LARGEST = 127


class Rounded(NamedTuple):
    """A tensor that its reader rounds.

    Attributes:
        blob (str): Its name in the graph.
        scale (float): Step between two integers.
    """

    blob: str
    scale: float


class IntegerWeight(NamedTuple):
    """Weights as integers.

    Attributes:
        integers (ndarray): int8, output channels first.
        scale (ndarray): Shape () or (output channels, ).
    """

    integers: NDArray
    scale: NDArray


def round_input(
    graph: NcnnGraph,
    blob: str,
    scale: NDArray,
    zero_point: NDArray,
    bounds: tuple[int, int],
    nonnegative: bool,
) -> Rounded:
    """Prepare a tensor for the rounding of the layer that reads it.

    Args:
        graph (NcnnGraph): Gets a Clip layer, if the range needs one.
        blob (str): Name of the tensor.
        scale (ndarray): Shape ().
        zero_point (ndarray): Shape ().
        bounds (tuple[int, int]): Smallest and largest integer. A signed range
            of 8 bits loses -128.
        nonnegative (bool): Whether no value of the tensor is below zero.

    Raises:
        Unsupported: If ncnn lacks the grid.
    """
    low, high = bounds
    if scale.size != 1:
        raise Unsupported('has one scale per channel of its input')
    if zero_point.any() or high > LARGEST:
        raise Unsupported(
            f'has a grid from {low} to {high} with the zero point '
            f'{int(zero_point)}; expected at most {LARGEST} and the zero '
            "point 0: train with quant=dict(target='ncnn')"
        )
    step = float(scale)
    limits = {}
    if low > -LARGEST and not (nonnegative and low == 0):
        limits[0] = low * step
    if high < LARGEST:
        limits[1] = high * step
    return Rounded(_clipped(graph, blob, limits) if limits else blob, step)


def _clipped(graph: NcnnGraph, blob: str, limits: dict[int, float]) -> str:
    for layer in graph.layers:  # another reader may have clipped it
        same = layer.inputs == [blob] and layer.params == limits
        if layer.kind == 'Clip' and same:
            return layer.outputs[0]
    return graph.add('Clip', [blob], limits)


def write_convolution(
    values: Values,
    node: Any,
    source: Rounded | str,
    weight: IntegerWeight | NDArray,
) -> str:
    """Add a convolution, in integers or in float.

    Args:
        values (Values): Of the program.
        node (Node): The convolution.
        source (Rounded | str): Its input.
        weight (IntegerWeight | ndarray): Its weight.

    Returns:
        str: Name of the output.

    Raises:
        Unsupported: If ncnn lacks this form.
    """
    _, _, bias, stride, padding, dilation, groups = arguments(
        node, 2, None, [1, 1], [0, 0], [1, 1], 1
    )
    scales = b''
    if isinstance(weight, IntegerWeight) and isinstance(source, Rounded):
        scale = np.broadcast_to(weight.scale, len(weight.integers))
        scales = float_bytes(1 / scale) + float_bytes(1 / source.scale)
        source, weight = source.blob, weight.integers
    if isinstance(weight, IntegerWeight) or isinstance(source, Rounded):
        raise Unsupported('rounds its input or its weight, expected both')
    channels, _, height, width = weight.shape
    params = {
        0: channels,
        1: width,
        11: height,
        2: dilation[1],
        12: dilation[0],
        3: stride[1],
        13: stride[0],
        4: padding[1],
        14: padding[0],
        5: 1,
        6: weight.size,
    }
    kind = 'Convolution'
    if groups > 1:
        kind, params[7] = 'ConvolutionDepthWise', groups
        if scales and (groups != channels or weight.shape[1] != 1):
            raise Unsupported(
                f'has {groups} groups for {channels} channels; expected 1 or '
                'as many groups as channels, since ncnn has one weight scale '
                'per group'
            )
    if scales:
        params[8] = 1
    shift = np.zeros(channels) if bias is None else values.constant(bias)
    data = weight_bytes(weight) + float_bytes(shift) + scales
    return values.graph.add(kind, [source], params, data)
