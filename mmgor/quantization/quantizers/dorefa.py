"""The quantizer DoReFa, which learns nothing."""

from typing import Any

import torch
from torch import Tensor

from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer

# They run the functions of functional.py, as one kernel in training.
from .compiled import dorefa_weight, pact


@MODELS.register_module()
class DoReFaQuantizer(BaseQuantizer):
    """DoReFa: tanh-squashed weights and fixed input ranges.

    Zhou et al., "DoReFa-Net", 2016. Nothing is learned. Inputs are clipped at
    the calibrated buffer ``clip``, of shape (num_scales, ).
    """

    clips_symmetrically = True
    clip: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('clip', torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        if self.for_weight:
            return dorefa_weight(x, self.qmax, self.per_channel)
        return pact(x, self.clip[slot], self.qmin, self.qmax)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        if self.for_weight:
            peak = functional.weight_peak(x, self.per_channel).flatten()
            return functional.clip_step(
                peak if self.per_channel else peak[0], self.qmax
            )
        return functional.clip_step(self.clip[slot], self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.clip.copy_(scale * self.qmax)
