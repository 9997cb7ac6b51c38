"""Quantizers without trained ranges: a fixed grid, and inputs that come
rounded."""

from typing import Any

import torch
from torch import Tensor

from mmgor.quantization.policy import ONLY_INPUTS
from mmgor.quantization.quantizers import functional
from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.marks import mark_of


class FixedQuantizer(BaseQuantizer):
    """The grid of a sigmoid's output: multiples of 1/256 from 0 to 255/256.

    LiteRT's quantization specification fixes it (operator LOGISTIC).

    Args:
        symmetric (bool): The range has to fit int8 with zero point 0:
            multiples of 1/128 from 0 to 127/128.
    """

    has_range = False

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__(8, symmetric=symmetric)
        self.choose_range(signed=False)

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        scale, offset = self.step(x, slot)
        bounds = self.qmin.to(x.device), self.qmax.to(x.device)
        return functional.fake_quantize(x, scale, offset, *bounds)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = torch.full((), 1 / (self.highest + 1), device=x.device)
        return scale, torch.zeros_like(scale)

    def set_ranges(self, *_: Tensor) -> None:
        """The range is fixed."""

    def forget_range(self) -> None:
        """The range is fixed."""


class GivenQuantizer(BaseQuantizer):
    """Stands where a layer's input was rounded by the module before.

    Args:
        bits (int): The layer's input bits. The tensor has those of the module
            that made it.
    """

    has_range = False
    calibrated = True

    def forward(self, x: Tensor, slot: int | None = None) -> Tensor:
        check_given(x, self.layer_name)
        return x

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        return x

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        raise ValueError(
            f'{self.layer_name} has no grid of its own: under tensors="all" '
            'it takes its input as the module before it has rounded it.'
        )

    def set_ranges(self, *_: Any) -> None:
        """There is no range."""


def check_given(x: Tensor, reader: str) -> None:
    """Make sure that the module before has rounded a tensor.

    Raises:
        RuntimeError: If it has not.
    """
    if mark_of(x) is None:
        raise RuntimeError(
            f"{reader} expected an input that is rounded: with tensors='all', "
            'which most values of target imply, backbone and neck round what '
            'they return. Write the same target, or the same tensors, in the '
            'quant of all of them (QuantBackbone, QuantNeck and QuantHead). '
            'A head behind a transformer or a RoI pooling, which round '
            f'nothing, needs {ONLY_INPUTS}.'
        )
