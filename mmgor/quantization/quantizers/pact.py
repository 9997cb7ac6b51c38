"""PACT: learned clipping of layer inputs."""

from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer


@MODELS.register_module()
class PACTQuantizer(BaseQuantizer):
    """Learned clipping of inputs (Choi et al., "PACT", 2018): ``alpha`` is a
    parameter of shape (num_scales, )."""

    clips_symmetrically = True
    inputs_only = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = nn.Parameter(torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        return functional.pact(x, self.alpha[slot], self.qmin, self.qmax)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        return functional.clip_step(self.alpha[slot], self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.alpha.data.copy_(scale * self.qmax)
