"""Constants of an ONNX graph."""

from typing import Any

from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require


def add_initializer(graph: Any, array: NDArray, name: str) -> Any:
    """Add a constant to a graph.

    Args:
        graph (onnx_ir.Graph): Changed in place.
        array (ndarray): Value of the constant.
        name (str): A name that the graph does not use yet.

    Returns:
        onnx_ir.Value: The initializer, to be used as a node's input.
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
