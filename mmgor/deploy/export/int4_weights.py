"""Weights of up to four bits, two in a byte."""

from typing import Any

import numpy as np

from mmgor.deploy.optional_imports import require

_INT4 = (-8, 7)


def constant(graph: Any, array: np.ndarray, name: str) -> Any:
    """A new initializer.

    Args:
        graph (onnx_ir.Graph): Gets it.
        array (ndarray): Its value.
        name (str): Unused so far.
    """
    ir = require('onnx_ir')
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=tensor.shape,
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def store_int4(graph: Any) -> int:
    """Store as int4 what fits: integers that go to a DequantizeLinear.

    Args:
        graph (onnx_ir.Graph): Changed in place.

    Returns:
        int: Tensors stored so.
    """
    dtype = require('ml_dtypes').int4
    stored: dict[str, Any] = {}
    for node in graph:
        source = node.inputs[0] if node.op_type == 'DequantizeLinear' else None
        if source is None or source.const_value is None:
            continue
        array = source.const_value.numpy()
        if array.min() < _INT4[0] or array.max() > _INT4[1]:
            continue
        if source.name not in stored:
            stored[source.name] = constant(
                graph, array.astype(dtype), f'{source.name}.int4'
            )
        node.replace_input_with(0, stored[source.name])
    return len(stored)
