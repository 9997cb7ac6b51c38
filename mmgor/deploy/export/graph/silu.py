"""Leaves out the roundings inside of SiLU, for runtimes that fuse it."""

from typing import Any

from mmgor.deploy.optional_imports import require

from .roundings import Rounding, find_roundings


def unround_silu(graph: Any) -> int:
    """Remove the roundings of a convolution's output, and of its sigmoid,
    that only ``x * sigmoid(x)`` reads.

    OpenVINO computes convolution, SiLU and the rounding of their result as
    one kernel, but only if nothing is rounded in between. What it computes
    then is nearer to the network without rounding than what was trained.

    Args:
        graph (onnx_ir.Graph): A trace before :func:`.store_for_target`;
            changed in place.

    Returns:
        int: Number of SiLUs that are not rounded inside any more.
    """
    roundings = find_roundings(graph)
    ending = {r.dequantize: r for r in roundings}
    starting = {r.quantize: r for r in roundings}
    count = 0
    for sigmoid in list(graph):
        if sigmoid.op_type != 'Sigmoid':
            continue
        outer = ending.get(sigmoid.inputs[0].producer())
        readers = [use.node for use in sigmoid.outputs[0].uses()]
        inner = starting.get(readers[0]) if len(readers) == 1 else None
        if outer and inner and _only_silu(outer, sigmoid, inner):
            _remove(graph, inner)
            _remove(graph, outer)
            count += 1
    return count


def _only_silu(outer: Rounding, sigmoid: Any, inner: Rounding) -> bool:
    """Whether two roundings are those of a SiLU behind a convolution, and
    nothing else reads their results."""
    layer = outer.quantize.inputs[0].producer()
    product = [use.node for use in inner.dequantize.outputs[0].uses()]
    readers = {use.node for use in outer.dequantize.outputs[0].uses()}
    return (
        layer is not None
        and layer.op_type == 'Conv'
        and len(layer.outputs[0].uses()) == 1
        and [node.op_type for node in product] == ['Mul']
        and readers == {sigmoid, *product}
    )


def _remove(graph: Any, rounding: Rounding) -> None:
    require('onnx_ir').convenience.replace_all_uses_with(
        rounding.dequantize.outputs[0], rounding.quantize.inputs[0]
    )
    for node in (rounding.dequantize, rounding.clip, rounding.quantize):
        if node is not None:
            graph.remove(node, safe=True)
