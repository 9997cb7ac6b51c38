"""The quantizer PACT, which learns where to clip inputs."""

from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer

# It runs functional.pact, as one kernel in training.
from .compiled import pact


@MODELS.register_module()
class PACTQuantizer(BaseQuantizer):
    """PACT: the clipping level of inputs is learned.

    Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural
    Networks", 2018. The parameter ``alpha`` has shape (num_scales, ) and the
    unit of the input. Weights are refused; the paper rounds them by
    :class:`~mmgor.quantization.quantizers.dorefa.DoReFaQuantizer`.
    """

    clips_symmetrically = True
    inputs_only = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = nn.Parameter(torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        return pact(x, self.alpha[slot], self.qmin, self.qmax)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        return functional.clip_step(self.alpha[slot], self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.alpha.data.copy_(scale * self.qmax)
