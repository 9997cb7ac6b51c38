"""Gives the roundings of an ONNX graph the types that its target computes
with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require
from mmgor.targets import Target

from .initializers import add_initializer
from .roundings import Known, Rounding, find_roundings, known_values
from .storage import Storage, saturating, stored_grid


def store_for_target(graph: Any, target: Target) -> None:
    """Change the stored integers of all roundings and weights of a graph.

    The values that the graph computes stay the same.

    Args:
        graph (onnx_ir.Graph): A trace whose batch norms are folded; changed
            in place.
        target (Target): Whose rules hold.

    Raises:
        ValueError: If the target's type does not hold a range.
    """
    roundings = find_roundings(graph)
    known = known_values(graph, roundings)
    plans = [(r, _plan(r, known, target)) for r in roundings]
    for number, (rounding, (storage, clip)) in enumerate(plans):
        _store(graph, rounding, storage, clip, f'rounding_{number}')
    if target.weight_zero_points:
        add_weight_zero_points(graph)


def _plan(
    rounding: Rounding, known: Known, target: Target
) -> tuple[Storage, str | None]:
    """The storage of a rounding, and the kind of its Clip if it needs one."""
    low, high = rounding.bounds
    storage = stored_grid(low, high, target.stored, target.symmetric_inputs)
    source = rounding.quantize.inputs[0]
    # A second rounding to the same grid changes nothing.
    same = known.on_grid.get(source) == rounding.grid
    if storage.fills_type or same:
        return storage, None
    # A ReLU may need the zero point at the smallest integer. Nothing is fused
    # into a sigmoid.
    movable = not target.relu_at_zero or _is_sigmoid(source)
    if (
        movable
        and not target.symmetric_inputs
        and rounding.starts_at_zero
        and source in known.never_negative
    ):
        return saturating(storage), None
    return storage, target.clip


def _is_sigmoid(value: Any) -> bool:
    node = value.producer()
    return node is not None and node.op_type == 'Sigmoid'


def _store(
    graph: Any,
    rounding: Rounding,
    storage: Storage,
    clip: str | None,
    name: str,
) -> None:
    zero = rounding.zero_point.astype(np.int32)
    values = _float_bounds(rounding, zero)
    stored = (zero + storage.shift).astype(storage.dtype)
    added = add_initializer(graph, stored, f'{name}.zero_point')
    quantize, dequantize = rounding.quantize, rounding.dequantize
    for node in (quantize, dequantize):
        node.replace_input_with(2, added)
    quantize.outputs[0].dtype = added.dtype
    if rounding.clip is not None:
        dequantize.replace_input_with(0, quantize.outputs[0])
        graph.remove(rounding.clip, safe=True)
    if clip == 'integer':
        bounds = np.array([storage.low, storage.high], storage.dtype)
        node = _clip(graph, quantize.outputs[0], bounds, name)
        graph.insert_before(dequantize, node)
        dequantize.replace_input_with(0, node.outputs[0])
    elif clip == 'float':
        source = quantize.inputs[0]
        if values[0] == 0:
            source = _before_relu(source)
        node = _clip(graph, source, values, name)
        graph.insert_before(quantize, node)
        quantize.replace_input_with(0, node.outputs[0])


def _float_bounds(rounding: Rounding, zero: NDArray) -> NDArray:
    """Smallest and largest value of a rounding, float32."""
    bounds = np.array(rounding.bounds) - zero
    return (bounds * rounding.scale).astype(np.float32)


def _before_relu(value: Any) -> Any:
    """The input of a ReLU that only a Clip from 0 on would read: the Clip
    does both."""
    node = value.producer()
    alone = node is not None and len(value.uses()) == 1
    if alone and node.op_type == 'Relu' and not value.is_graph_output():
        return node.inputs[0]
    return value


def _clip(graph: Any, value: Any, bounds: NDArray, name: str) -> Any:
    ends = [
        add_initializer(graph, bound, f'{name}.{end}')
        for end, bound in zip(('low', 'high'), bounds)
    ]
    node = require('onnx_ir').Node('', 'Clip', inputs=[value, *ends])
    node.outputs[0].dtype = value.dtype
    node.outputs[0].shape = value.shape
    return node


def add_weight_zero_points(graph: Any) -> None:
    """Give each DequantizeLinear of a weight a zero point of 0.

    Args:
        graph (onnx_ir.Graph): Changed in place.
    """
    for node in graph:
        if node.op_type != 'DequantizeLinear' or len(node.inputs) > 2:
            continue
        integers, scale = node.inputs
        zeros = np.zeros(
            scale.shape.numpy(), integers.const_value.numpy().dtype
        )
        node.resize_inputs(3)
        name = f'{integers.name}.zero_point_{len(zeros.shape)}'
        existing = graph.initializers.get(name)
        if existing is None:
            existing = add_initializer(graph, zeros, name)
        node.replace_input_with(2, existing)
