"""Chains the poolings of spatial pyramid pooling: the same maxima, cheaper."""

from itertools import pairwise
from typing import Any

from mmgor.deploy.optional_imports import require

from .roundings import find_roundings, known_values


def chain_poolings(graph: Any) -> int:
    """Let a larger max pooling read a smaller one of the same tensor.

    With stride 1 and padding that keeps the size, a window of 9 x 9 is the
    maximum over windows of 5 x 5, whose centres lie in 5 x 5. So 5, 9 and 13
    become 5, 5 and 5, which compare 75 instead of 275 values.

    Args:
        graph (onnx_ir.Graph): A trace before :func:`.store_for_target`;
            changed in place.

    Returns:
        int: Number of poolings that read another one now.
    """
    readers: dict[Any, list[tuple[int, Any]]] = {}
    for node in graph:
        width = _kept_size(node)
        if width:
            readers.setdefault(node.inputs[0], []).append((width, node))
    after = _rounded_again(graph)
    count = 0
    for poolings in readers.values():
        poolings.sort(key=lambda pooling: pooling[0])
        for (small, before), (large, node) in pairwise(poolings):
            if small < large:
                maxima = before.outputs[0]
                source = after.get(maxima, maxima)
                _read(node, source, large - small + 1)
                count += 1
    if count:
        graph.sort()
    return count


def _rounded_again(graph: Any) -> dict[Any, Any]:
    """Maps rounded values to the same values after a second rounding, which
    changes nothing. Integer kernels need one between two poolings."""
    roundings = find_roundings(graph)
    known = known_values(graph, roundings)
    sources = ((r, r.quantize.inputs[0]) for r in roundings)
    return {
        source: rounding.dequantize.outputs[0]
        for rounding, source in sources
        if known.on_grid.get(source) == rounding.grid
    }


def _kept_size(node: Any) -> int:
    """Width of a square max pooling that keeps the size; 0 for others."""
    if node.op_type != 'MaxPool' or len(node.outputs) > 1:
        return 0
    given = {
        name: node.attributes[name].as_ints()
        for name in ('kernel_shape', 'pads', 'strides', 'dilations')
        if name in node.attributes
    }
    height, *widths = given['kernel_shape']
    keeps = (
        widths == [height]
        and height % 2 == 1
        and list(given.get('pads', [])) == [height // 2] * 4
        and set(given.get('strides', [1])) == {1}
        and set(given.get('dilations', [1])) == {1}
    )
    return height if keeps else 0


def _read(node: Any, source: Any, width: int) -> None:
    ir = require('onnx_ir')
    node.replace_input_with(0, source)
    node.attributes['kernel_shape'] = ir.AttrInt64s(
        'kernel_shape', [width] * 2
    )
    node.attributes['pads'] = ir.AttrInt64s('pads', [width // 2] * 4)
