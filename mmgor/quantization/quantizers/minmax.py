"""The quantizer MinMax, whose ranges are extremes of the data."""

from functools import partial
from typing import Any

import torch
from mmengine import dist
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .base import BaseQuantizer, weight_rows

# They run the functions of functional.py, as one kernel in training.
from .compiled import fake_quantize, minmax_scale
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
            scale = self._steps(
                x, partial(self._averaged_scale, x.detach(), slot), True
            )
        else:
            scale = self._scale(x, slot)
        axis = 0 if self.per_channel else None
        return fake_quantize(x, scale, None, self.qmin, self.qmax, axis=axis)

    def forget_calls(self) -> None:
        super().forget_calls()
        self._steps.forget()

    def _is_constant(self) -> bool:
        averages = self.training and not self.for_weight
        return super()._is_constant() and not averages

    def _averaged_scale(self, x: Tensor, slot: int) -> Tensor:
        self._average(x, slot)
        return self._scale(x, slot)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = self._scale(x, slot)
        return scale, torch.zeros_like(scale)

    def _scale(self, x: Tensor, slot: int) -> Tensor:
        if self.for_weight:
            rows = weight_rows(x.detach(), self.per_channel)
            low, high = rows.aminmax(dim=1)
            if not self.per_channel:
                low, high = low[0], high[0]
        else:
            low, high = self.low[slot], self.high[slot]
        return minmax_scale(low, high, self.qmin, self.qmax)

    @torch.no_grad()
    def _average(self, x: Tensor, slot: int) -> None:
        average = [self.low[slot], self.high[slot]]
        if x.numel() == 0:  # no proposals, but other ranks wait in all_reduce
            extremes = average
        else:
            extremes = [extreme.float() for extreme in x.aminmax()]
        if dist.is_distributed():
            # Ranks see different images: without the mean, their ranges
            # would differ.
            both = torch.stack(extremes)
            dist.all_reduce(both, 'mean')
            extremes = [*both]
        torch._foreach_lerp_(average, extremes, self.momentum)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.low.copy_(low)
        self.high.copy_(high)
