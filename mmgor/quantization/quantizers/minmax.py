"""The quantizer MinMax, whose ranges are extremes of the data."""

from functools import partial
from typing import Any

import torch
from mmengine import dist
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer, weight_rows

# It runs functional.fake_quantize, as one kernel in training.
from .compiled import fake_quantize
from .recomputation import OncePerCall


@MODELS.register_module()
class MinMaxQuantizer(BaseQuantizer):
    """MinMax: ranges from the data, without learned parameters.

    The range of a weight comes from its present extremes, that of an input
    from a moving average of its extremes (Jacob et al., CVPR 2018, section
    3.1).

    Args:
        momentum (float): Weight of the new batch in the moving average, above
            0 and at most 1.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, *args: Any, momentum: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.momentum = number(
            'momentum', momentum, '(0, 1]', 'it is the share of the new batch'
        )
        self._steps = OncePerCall()
        self.register_buffer('low', torch.zeros(self.num_scales))
        self.register_buffer('high', torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        if self.training and not self.for_weight:
            # The average changes with each call, but the second run of a
            # checkpoint must use the scale of the first.
            scale, _ = self._steps(
                x, partial(self._averaged_step, x.detach(), slot), True
            )
        else:
            scale, _ = self.step(x, slot)
        axis = 0 if self.per_channel else None
        return fake_quantize(x, scale, None, self.qmin, self.qmax, axis=axis)

    def _is_constant(self) -> bool:
        averages = self.training and not self.for_weight
        return super()._is_constant() and not averages

    def _averaged_step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        self._average(x, slot)
        return self.step(x, slot)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        if self.for_weight:
            rows = weight_rows(x.detach(), self.per_channel)
            low, high = rows.aminmax(dim=1)
            if not self.per_channel:
                low, high = low[0], high[0]
        else:
            low, high = self.low[slot], self.high[slot]
        scale = functional.minmax_scale(low, high, self.qmin, self.qmax)
        return scale, torch.zeros_like(scale)

    @torch.no_grad()
    def _average(self, x: Tensor, slot: int) -> None:
        if x.numel() == 0:  # no proposals, but other ranks wait in all_reduce
            extremes = torch.stack([self.low[slot], self.high[slot]])
        else:
            extremes = torch.stack(x.aminmax()).float()
        # Ranks see different images: without the mean, their ranges would
        # differ.
        dist.all_reduce(extremes, 'mean')
        self.low[slot].lerp_(extremes[0], self.momentum)
        self.high[slot].lerp_(extremes[1], self.momentum)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.low.copy_(low)
        self.high.copy_(high)
