"""Weights of up to four bits as int4, two in a byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require

_INT4 = (-8, 7)


def use_int4_weights(model: Any) -> int:
    """Store the weights of convolutions as int4 where they fit.

    Those of depthwise convolutions stay int8: LiteRT has no kernel for
    others.

    Args:
        model (ModelT): Object of LiteRT's schema. Changed in place.

    Returns:
        int: Number of weights that are int4 now.
    """
    schema = require('ai_edge_litert.schema_py_generated')
    graph, codes = model.subgraphs[0], model.operatorCodes
    count = 0
    for op in graph.operators:
        code = codes[op.opcodeIndex].builtinCode
        if code != schema.BuiltinOperator.CONV_2D:
            continue
        weight = graph.tensors[op.inputs[1]]
        data = model.buffers[weight.buffer].data
        if weight.type != schema.TensorType.INT8 or data is None:
            continue
        integers = np.frombuffer(bytes(data), np.int8)
        if integers.min() < _INT4[0] or integers.max() > _INT4[1]:
            continue
        packed = schema.BufferT()
        packed.data = pack_int4(integers)
        weight.type, weight.buffer = schema.TensorType.INT4, len(model.buffers)
        model.buffers.append(packed)
        count += 1
    return count


def pack_int4(integers: NDArray) -> NDArray:
    """Pack integers of four bits into bytes, the first into the low half.

    Args:
        integers (NDArray): Shape (N, ), int8, from -8 to 7.

    Returns:
        NDArray: Shape (ceil(N / 2), ), uint8.
    """
    halves = np.append(integers, np.zeros(len(integers) % 2, np.int8))
    halves = halves.view(np.uint8) & 15
    return halves[0::2] | (halves[1::2] << 4)
