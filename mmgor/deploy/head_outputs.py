"""The nested outputs of a head: their tensors in a flat list, their names.

A head's ``forward`` gives tuples of lists, such as (scores of each level,
boxes of each level). The outputs of a graph are a flat list of names.
"""

from collections.abc import Callable, Sequence
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


def map_nested(function: Callable, *nested: Any) -> Any:
    """Call a function on the leaves of nested lists (or tuples).

    Args:
        function (Callable): Takes one leaf of each argument.
        *nested: Nested lists of the same structure.

    Returns:
        list: The results in that structure.
    """
    if isinstance(nested[0], Sequence) and not isinstance(nested[0], str):
        return [map_nested(function, *items) for items in zip(*nested)]
    return function(*nested)
