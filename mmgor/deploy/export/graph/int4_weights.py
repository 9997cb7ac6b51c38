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

    def as_int4(value: Any) -> Any:
        if value.name not in converted:
            array = value.const_value.numpy().astype(dtype)
            converted[value.name] = add_initializer(
                graph, array, f'{value.name}.int4'
            )
        return converted[value.name]

    weights = set()
    for node in graph:
        source = node.inputs[0] if node.op_type == 'DequantizeLinear' else None
        if source is None or source.const_value is None:
            continue
        array = source.const_value.numpy()
        if array.min() < _INT4[0] or array.max() > _INT4[1]:
            continue
        weights.add(source.name)
        node.replace_input_with(0, as_int4(source))
        if len(node.inputs) > 2:  # a zero point has the type of its weight
            node.replace_input_with(2, as_int4(node.inputs[2]))
    return len(weights)
