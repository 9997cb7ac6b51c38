"""Nested outputs of a head, flat and by name."""

from typing import Any

from torch import Tensor


def flatten(outputs: Any) -> list:
    """The tensors (or their names) in nested tuples and lists, in order."""
    if isinstance(outputs, (Tensor, str)):
        return [outputs]
    return [leaf for part in outputs for leaf in flatten(part)]


def name_outputs(outputs: Any, name: str = 'output') -> Any:
    """Names in the structure of ``outputs``: output_<position>_<level>."""
    if isinstance(outputs, Tensor):
        return name
    return [name_outputs(o, f'{name}_{i}') for i, o in enumerate(outputs)]
