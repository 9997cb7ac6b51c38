"""Marks on tensors that say which grid their values lie on.

A tensor that was rounded for one reader is not rounded again for the next one.
"""

from typing import NamedTuple

from torch import Tensor, nn

_NAME = '_mmgor_grid'


class Mark(NamedTuple):
    """The quantizer that has rounded a tensor, and the slot."""

    quantizer: nn.Module
    slot: int


def mark(x: Tensor, quantizer: nn.Module, slot: int) -> Tensor:
    """Note that the values of ``x`` lie on a grid; returns ``x``."""
    setattr(x, _NAME, Mark(quantizer, slot))
    return x


def mark_of(x: Tensor) -> Mark | None:
    """The mark of a tensor. A tensor that is made from ``x`` has none."""
    return getattr(x, _NAME, None)


def unmark(x: Tensor) -> None:
    """Note that ``x`` has changed in place."""
    if mark_of(x) is not None:
        delattr(x, _NAME)


def is_marked(
    x: Tensor, quantizer: nn.Module, slot: int | None = None
) -> bool:
    """Whether ``quantizer`` has rounded ``x`` already.

    Args:
        x (Tensor): Any tensor.
        quantizer (nn.Module): A quantizer.
        slot (int, optional): The slot. Default: any.
    """
    found = mark_of(x)
    if found is None or slot not in (None, found.slot):
        return False
    # While torch.export traces, a module that several others share has one
    # stand-in for each of them. They have the attributes in common.
    return vars(found.quantizer) is vars(quantizer)
