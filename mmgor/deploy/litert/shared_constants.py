"""Stores equal constants once."""

from typing import Any


def share_constants(model: Any) -> int:
    """Let tensors with equal values read one buffer.

    A head that is shared by pyramid levels has its weights once per level
    otherwise.

    Args:
        model (ModelT): Object of LiteRT's schema. Changed in place.

    Returns:
        int: Number of buffers that are empty now.
    """
    first: dict[bytes, int] = {}
    tensors = [t for graph in model.subgraphs for t in graph.tensors]
    for tensor in tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None:
            tensor.buffer = first.setdefault(bytes(data), tensor.buffer)
    read = {tensor.buffer for tensor in tensors}
    read |= {entry.buffer for entry in model.metadata or []}
    count = 0
    for index, buffer in enumerate(model.buffers):
        if index not in read and buffer.data is not None:
            buffer.data = None
            count += 1
    return count
