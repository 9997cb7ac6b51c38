"""Writes linear layers so that ONNX Runtime computes them in integers."""

from typing import Any

from .initializers import add_initializer

# The bias gets as many axes. A product with fewer would get more of them.
_AXES = 3
# ONNX Runtime moves a rounding in front of them.
_MOVING = {'Reshape', 'Transpose', 'Squeeze', 'Unsqueeze', 'Slice'}


def keep_biases_apart(graph: Any) -> int:
    """Keep ONNX Runtime from joining linear layers with their biases.

    It joins a MatMul and a bias of shape (C, ) to a Gemm, which has integer
    kernels only if its sum is rounded. With a bias of shape (1, 1, C) the
    MatMul stays alone, and has integer kernels in any case.

    Args:
        graph (onnx_ir.Graph): Changed in place. It computes the same.

    Returns:
        int: Number of biases of another shape.
    """
    lifted: dict[str, Any] = {}
    count = 0
    for node in graph:
        if not _is_unrounded_linear(node):
            continue
        bias = node.inputs[1]
        if bias.name not in lifted:
            array = bias.const_value.numpy().reshape(1, 1, -1)
            lifted[bias.name] = add_initializer(
                graph, array, f'{bias.name}.lifted'
            )
        node.replace_input_with(1, lifted[bias.name])
        count += 1
    return count


def _is_unrounded_linear(node: Any) -> bool:
    """Whether a node adds the bias of a layer that reads a rounded tensor,
    and the sum is not rounded."""
    if node.op_type != 'Add':
        return False
    product, bias = node.inputs
    layer = product.producer()
    if layer is None or layer.op_type != 'MatMul':
        return False
    source = layer.inputs[0].producer()
    return (
        source is not None
        and source.op_type == 'DequantizeLinear'
        and bias.const_value is not None
        and bias.const_value.shape.rank() == 1
        and product.shape is not None
        and product.shape.rank() >= _AXES
        and not _is_rounded(node)
    )


def _is_rounded(node: Any) -> bool:
    """Whether a rounding is all that reads the output of a node."""
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) != 1:
        return False
    (reader,) = readers
    return reader.op_type == 'QuantizeLinear' or (
        reader.op_type in _MOVING and _is_rounded(reader)
    )
