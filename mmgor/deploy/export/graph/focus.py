"""Merges YOLOX's Focus into the convolution that reads it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require

from .initializers import add_initializer
from .roundings import constant, find_roundings, known_values

_PHASES = {(0, 0), (0, 1), (1, 0), (1, 1)}
_ROWS, _COLUMNS = 2, 3
_STEP = 2
# Start, end, axis and step of a Slice.
_BOUNDS = 4


def merge_focus(graph: Any) -> int:
    """Let a convolution read what Focus reads, with stride 2.

    Focus takes every second row and column, four times, and joins them as
    channels: six strided copies. A convolution of twice the width with
    stride 2 has the same products (kernel 6 x 6 instead of 3 x 3 on four
    times the channels), and nothing is copied.

    Args:
        graph (onnx_ir.Graph): A trace before :func:`.store_for_target`;
            changed in place.

    Returns:
        int: Number of convolutions that were changed.
    """
    again = _same_values(graph)
    count = 0
    for node in list(graph):
        found = _focus(node, again)
        if found is not None:
            _merge(graph, node, *found)
            count += 1
    return count


def spread_kernel(weight: NDArray, phases: list[tuple[int, int]]) -> NDArray:
    """The kernel that reads the pixels themselves.

    Args:
        weight (NDArray): Shape (O, 4 C, H, W).
        phases (list[tuple[int, int]]): First row and column of each group of
            C channels.

    Returns:
        NDArray: Shape (O, C, 2 H, 2 W).
    """
    outputs, channels, height, width = weight.shape
    spread = np.empty(
        (outputs, channels // 4, 2 * height, 2 * width), weight.dtype
    )
    for part, (row, column) in zip(np.split(weight, 4, 1), phases):
        spread[:, :, row::_STEP, column::_STEP] = part
    return spread


def _same_values(graph: Any) -> dict[Any, Any]:
    """Maps the result of each rounding that changes nothing to its operand."""
    roundings = find_roundings(graph)
    known = known_values(graph, roundings)
    return {
        r.dequantize.outputs[0]: r.quantize.inputs[0]
        for r in roundings
        if known.on_grid.get(r.quantize.inputs[0]) == r.grid
    }


def _focus(node: Any, again: dict) -> tuple[Any, list] | None:
    """What a Focus in front of a convolution reads, and the order of its
    parts; None for other nodes."""
    if node.op_type != 'Conv' or not _is_plain(node):
        return None
    concat = _origin(node.inputs[0], again).producer()
    if concat is None or concat.op_type != 'Concat':
        return None
    parts = [_phase(value, again) for value in concat.inputs]
    phases = [phase for _, phase in parts]
    sources = {source for source, _ in parts}
    fits = (
        concat.attributes['axis'].as_int() == 1
        and len(phases) == len(_PHASES)
        and set(phases) == _PHASES
        and len(sources) == 1
    )
    return (sources.pop(), phases) if fits else None


def _is_plain(conv: Any) -> bool:
    """Whether a convolution has stride 1 and constant integers."""
    weight = conv.inputs[1].producer()
    ones = [
        *conv.attributes['strides'].as_ints(),
        *conv.attributes['dilations'].as_ints(),
        conv.attributes['group'].as_int(),
    ]
    return (
        set(ones) == {1}
        and weight is not None
        and weight.op_type == 'DequantizeLinear'
        and weight.inputs[0].const_value is not None
        and len(weight.inputs[0].shape) == _COLUMNS + 1
    )


def _origin(value: Any, again: dict) -> Any:
    while value in again:
        value = again[value]
    return value


def _phase(value: Any, again: dict) -> tuple[Any, tuple[int, int]]:
    """What a chain of slices reads, and its first row and column; (-1, -1)
    if it is something else than every second row and column."""
    starts: dict[int, int] = {}
    value = _origin(value, again)
    while value.producer() is not None and value.producer().op_type == 'Slice':
        node = value.producer()
        bounds = node.inputs[1:]
        if len(bounds) != _BOUNDS or not all(map(_is_constant, bounds)):
            return value, (-1, -1)
        start, end, axis, step = map(constant, bounds)
        to_the_end = (end >= np.iinfo(np.int32).max).all()
        known = len(axis) > 1 or int(axis[0]) in starts
        if not to_the_end or (step != _STEP).any() or known:
            return value, (-1, -1)
        starts[int(axis[0])] = int(start[0])
        value = _origin(node.inputs[0], again)
    if set(starts) != {_ROWS, _COLUMNS}:
        return value, (-1, -1)
    return value, (starts[_ROWS], starts[_COLUMNS])


def _is_constant(value: Any) -> bool:
    if value is None:
        return False
    node = value.producer()
    return value.const_value is not None or (
        node is not None and 'value' in node.attributes
    )


def _merge(graph: Any, conv: Any, source: Any, phases: list) -> None:
    ir = require('onnx_ir')
    old = conv.inputs[1].producer()
    weight = spread_kernel(old.inputs[0].const_value.numpy(), phases)
    name = f'{old.inputs[0].name}.spread'
    fresh = ir.Node(
        old.domain,
        old.op_type,
        inputs=[add_initializer(graph, weight, name), *old.inputs[1:]],
        attributes=list(old.attributes.values()),
    )
    graph.insert_before(conv, fresh)
    conv.replace_input_with(0, source)
    conv.replace_input_with(1, fresh.outputs[0])
    pads = [_STEP * pad for pad in conv.attributes['pads'].as_ints()]
    for key, values in dict(
        kernel_shape=weight.shape[2:], strides=[_STEP] * 2, pads=pads
    ).items():
        conv.attributes[key] = ir.AttrInt64s(key, values)
