"""Quantized forms of timm's own convolutions and linear.

timm is optional: this file is imported when one of its layers is met
(:func:`.quant_layers.is_quantizable`).
"""

from typing import Any

import torch
from timm.layers import (
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.layers.linear import Linear
from timm.layers.padding import pad_same
from torch import Tensor, nn

from .quant_layers import quantizes
from .variants import StandardisedMixin, StockForwardMixin


@quantizes(Linear)
class QuantTimmLinear(StockForwardMixin, Linear, nn.Linear):
    """timm's ``nn.Linear`` for mixed precision."""


@quantizes(Conv2dSame)
class QuantConv2dSame(StockForwardMixin, Conv2dSame, nn.Conv2d):
    """Convolution whose padding follows from its input size (timm)."""


class TimmStandardisedMixin(StandardisedMixin):
    """Weight standardisation as in timm, with the biased variance."""

    eps: float

    def channels_first(self) -> Tensor:
        rows = self.weight.flatten(1)
        variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
        rows = (rows - mean) * torch.rsqrt(variance + self.eps)
        return rows.view_as(self.weight)


class ScaledMixin(TimmStandardisedMixin):
    """The same, times a trained gain per output channel (NFNets,
    arXiv:2101.08692)."""

    gain: Tensor
    scale: float

    def channels_first(self) -> Tensor:
        return super().channels_first() * (self.gain * self.scale)


class SamePaddingMixin(TimmStandardisedMixin):
    """Pads the rounded input as its size asks for."""

    def forward(self, input: Tensor) -> Tensor:
        stock: Any = self
        x = self.input_quantizer(input)
        if stock.same_pad:
            geometry = stock.kernel_size, stock.stride, stock.dilation
            x = pad_same(x, *geometry)
        return stock._conv_forward(x, self.quantized_weight(), stock.bias)


@quantizes(StdConv2d)
class QuantStdConv2d(TimmStandardisedMixin, StdConv2d, nn.Conv2d):
    """Convolution with weight standardisation (BiT)."""


@quantizes(StdConv2dSame)
class QuantStdConv2dSame(SamePaddingMixin, StdConv2dSame, nn.Conv2d):
    """The same, with padding that follows from the input size."""


@quantizes(ScaledStdConv2d)
class QuantScaledStdConv2d(ScaledMixin, ScaledStdConv2d, nn.Conv2d):
    """Convolution with scaled weight standardisation (NFNets)."""


@quantizes(ScaledStdConv2dSame)
class QuantScaledStdConv2dSame(
    SamePaddingMixin, ScaledMixin, ScaledStdConv2dSame, nn.Conv2d
):
    """The same, with padding that follows from the input size."""
