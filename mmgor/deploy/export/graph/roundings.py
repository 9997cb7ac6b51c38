"""Finds the roundings in an ONNX graph, and what is known of its values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Operators whose outputs are some of their inputs' values.
_MOVING = {'MaxPool', 'Concat', 'Slice', 'Split', 'Identity'} | {
    *('Reshape', 'Transpose', 'Flatten', 'Squeeze', 'Unsqueeze'),
}
_NEVER_NEGATIVE = {'Relu', 'Sigmoid', 'HardSigmoid', 'Softmax', 'Exp'}
# Operators whose output is not negative if no input is.
_KEEPING_SIGN = {'Add', 'Mul', 'AveragePool', 'GlobalAveragePool', 'Resize'}


@dataclass(frozen=True)
class GridKey:
    """Scale, zero point and bounds of a rounding, comparable by value."""

    scale: bytes
    zero_point: bytes
    low: int
    high: int


@dataclass(frozen=True)
class Rounding:
    """QuantizeLinear, Clip (below 8 bits) and DequantizeLinear.

    Args:
        quantize (onnx_ir.Node): Its QuantizeLinear.
        clip (onnx_ir.Node, optional): Its Clip.
        dequantize (onnx_ir.Node): Its DequantizeLinear.
    """

    quantize: Any
    clip: Any
    dequantize: Any

    @property
    def scale(self) -> NDArray:
        """Shape () or (C, )."""
        return constant(self.quantize.inputs[1])

    @property
    def zero_point(self) -> NDArray:
        """Shape of ``scale``."""
        return constant(self.quantize.inputs[2])

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        if self.clip is None:
            limits = np.iinfo(self.zero_point.dtype)
            return int(limits.min), int(limits.max)
        low, high = (int(constant(v)) for v in self.clip.inputs[1:])
        return low, high

    @property
    def grid(self) -> GridKey:
        """What it rounds to."""
        zero = self.zero_point.astype(np.int32)
        return GridKey(self.scale.tobytes(), zero.tobytes(), *self.bounds)

    @property
    def starts_at_zero(self) -> bool:
        """Whether its smallest value is 0."""
        return bool((self.zero_point == self.bounds[0]).all())


def find_roundings(graph: Any) -> list[Rounding]:
    """All roundings of activations, as a trace has them.

    Args:
        graph (onnx_ir.Graph): Weights have a DequantizeLinear only.
    """
    found = []
    for node in graph:
        if node.op_type != 'QuantizeLinear':
            continue
        clip, reader = None, _reader(node)
        if reader.op_type == 'Clip':
            clip, reader = reader, _reader(reader)
        found.append(Rounding(node, clip, reader))
    return found


def _reader(node: Any) -> Any:
    """The only reader of a node's output."""
    (use,) = node.outputs[0].uses()
    return use.node


def constant(value: Any) -> NDArray:
    """The array of an initializer or of a Constant node."""
    if value.const_value is not None:
        array: NDArray = value.const_value.numpy()
        return array
    tensor = value.producer().attributes['value'].as_tensor()
    return np.asarray(tensor.numpy())


@dataclass
class Known:
    """What follows from the structure of a graph.

    Args:
        on_grid (dict): Maps values that were rounded, and not changed since,
            to the grid.
        never_negative (set): Values that have no number below zero.
    """

    on_grid: dict[Any, GridKey] = field(default_factory=dict)
    never_negative: set[Any] = field(default_factory=set)


def known_values(graph: Any, roundings: list[Rounding]) -> Known:
    """Go through a graph in order and note what is known of its values.

    Args:
        graph (onnx_ir.Graph): Sorted, as a trace is.
        roundings (list[Rounding]): All of its roundings.
    """
    known = Known()
    rounded = {r.dequantize: r for r in roundings}
    for node in graph:
        for output in node.outputs:
            if node in rounded:
                known.on_grid[output] = rounded[node].grid
                if rounded[node].starts_at_zero:
                    known.never_negative.add(output)
                continue
            sources = list(_sources(node))
            grids = {known.on_grid.get(source) for source in sources}
            if _moves(node) and len(grids) == 1 and None not in grids:
                known.on_grid[output] = grids.pop()  # type: ignore[assignment]
            keeps = _moves(node) or node.op_type in _KEEPING_SIGN
            if node.op_type in _NEVER_NEGATIVE or (
                keeps and known.never_negative.issuperset(sources)
            ):
                known.never_negative.add(output)
    return known


def _moves(node: Any) -> bool:
    if node.op_type == 'Resize':
        mode = node.attributes.get('mode')
        return mode is None or mode.as_string() == 'nearest'
    return node.op_type in _MOVING


def _sources(node: Any) -> Iterator[Any]:
    """The inputs whose values reach a node's output."""
    every = node.op_type in ('Concat', 'Add', 'Mul')
    yield from node.inputs if every else node.inputs[:1]
