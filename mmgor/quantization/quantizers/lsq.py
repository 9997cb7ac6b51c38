"""The quantizers LSQ (learned step size) and LSQ+ (with an offset)."""

from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer

# It runs functional.fake_quantize, as one kernel in training.
from .compiled import fake_quantize


@MODELS.register_module()
class LSQQuantizer(BaseQuantizer):
    """LSQ: the step size is learned.

    Esser et al., "Learned Step Size Quantization", ICLR 2020. The parameter
    ``log_scale``, of shape (num_scales, ), is the logarithm of the step size
    in units of the tensor (see :func:`functional.exp_scale`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.zeros(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        return self._round(x, self._scale(x, slot), None)

    def _round(
        self, x: Tensor, scale: Tensor, offset: Tensor | None
    ) -> Tensor:
        bounds = self.qmin, self.qmax
        if self.channels == 1:
            return fake_quantize(x, scale, offset, *bounds, self.per_channel)
        rows = x.flatten(0, 1)  # one per image and channel
        scale = scale.repeat(len(x))
        offset = None if offset is None else offset.repeat(len(x))
        return fake_quantize(rows, scale, offset, *bounds, True).view_as(x)

    def _of_slot(self, values: Tensor, slot: int) -> Tensor:
        """The values of a slot, shape () or (channels, )."""
        return values.view(-1, self.channels)[slot].squeeze()

    def _scale(self, x: Tensor, slot: int) -> Tensor:
        log_scale: Tensor = self.log_scale
        if not self.per_channel:
            log_scale = self._of_slot(log_scale, slot)
        count = x.numel() // log_scale.numel()
        factor = functional.lsq_gradient_factor(count, self.highest)
        return functional.exp_scale(log_scale, factor)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = self._scale(x, slot)
        return scale, torch.zeros_like(scale)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.log_scale.data.copy_(scale.log())


@MODELS.register_module()
class LSQPlusQuantizer(LSQQuantizer):
    """LSQ+: LSQ with a learned offset.

    Bhalgat et al., "LSQ+", CVPRW 2020. It suits inputs with a short negative
    tail, as after SiLU (Swish) or Hardswish. The parameter ``offset`` has
    shape (num_scales, ) and the unit of the input. Weights are refused: their
    ranges stay symmetric, so that batch norm folds exactly.
    """

    asymmetric = True
    inputs_only = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offset = nn.Parameter(torch.zeros(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        count = x.numel() // self.channels
        factor = functional.lsq_gradient_factor(count, self.highest)
        offset = self._of_slot(self.offset, slot)
        offset = functional.scale_gradient(offset, factor)
        return self._round(x, self._scale(x, slot), offset)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = self._scale(x, slot)
        return scale, -torch.round(self._of_slot(self.offset, slot) / scale)

    def choose_range(self, signed: bool) -> None:
        super().choose_range(signed=False)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        super().set_ranges(scale, offset, low, high)
        self.offset.data.copy_(offset)
