"""Weights of up to four bits as int4, which takes half a byte per weight."""

from typing import Any

from mmgor.deploy.optional_imports import require

from .initializers import add_initializer

_INT4 = (-8, 7)


def use_int4_weights(graph: Any) -> int:
    """Turn every int8 weight that fits into int4.

    A weight is a constant that goes to a DequantizeLinear. It fits if all its
    integers are from -8 to 7.

    Args:
        graph (onnx_ir.Graph): Changed in place.

    Returns:
        int: Number of weights that are int4 now.
    """
    dtype = require('ml_dtypes').int4
    converted: dict[str, Any] = {}
    for node in graph:
        source = node.inputs[0] if node.op_type == 'DequantizeLinear' else None
        if source is None or source.const_value is None:
            continue
        array = source.const_value.numpy()
        if array.min() < _INT4[0] or array.max() > _INT4[1]:
            continue
        if source.name not in converted:
            converted[source.name] = add_initializer(
                graph, array.astype(dtype), f'{source.name}.int4'
            )
        node.replace_input_with(0, converted[source.name])
    return len(converted)
