"""Quantized forms of mmcv's and mmdet's own convolutions and linears.

Each quantized class also lists the bases of its stock class, because
mmengine's initialisers look at a layer's class and its direct bases.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvAWS2d, ConvWS2d
from mmcv.cnn.bricks import Conv2dAdaptivePadding
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    MaskedConv2d,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    SAConv2d,
    deform_conv2d,
)
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.models.layers import NormedLinear
from mmengine.model import BaseModule
from torch import Tensor, nn

from .quant_layers import Conv2dForwardMixin, QuantLayerMixin, quantizes


class StockForwardMixin(QuantLayerMixin):
    """The stock forward pass with quantized input and weight."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        stock: Any = super()
        x, *rest = args
        with self.rounded():
            return stock.forward(self.input_quantizer(x), *rest, **kwargs)


@quantizes(nn.Conv1d)
class QuantConv1d(StockForwardMixin, nn.Conv1d):
    """``nn.Conv1d`` with quantized weight and input."""


@quantizes(Conv2dAdaptivePadding)
class QuantConv2dAdaptivePadding(
    StockForwardMixin, Conv2dAdaptivePadding, nn.Conv2d
):
    """Convolution whose padding follows from its input size (EfficientNet)."""


@quantizes(MaskedConv2d)
class QuantMaskedConv2d(StockForwardMixin, MaskedConv2d, nn.Conv2d):
    """Convolution at the positions of a mask (guided anchoring)."""


@quantizes(NormedLinear)
class QuantNormedLinear(StockForwardMixin, NormedLinear, nn.Linear):
    """Cosine classifier.

    Weight and input are rounded first and normalised afterwards. Normalising a
    row multiplies it by one number, so its integers stay the same.
    """


@quantizes(DeformConv2d)
class QuantDeformConv2d(StockForwardMixin, DeformConv2d):
    """Deformable convolution that gets its offsets as an argument."""


@quantizes(ModulatedDeformConv2d)
class QuantModulatedDeformConv2d(StockForwardMixin, ModulatedDeformConv2d):
    """Modulated deformable convolution; offsets and mask are not rounded."""


@quantizes(DeformConv2dPack)
class QuantDeformConv2dPack(QuantLayerMixin, DeformConv2dPack, DeformConv2d):
    """Deformable convolution with an offset branch. The branch stays in float
    and reads the float input."""

    def forward(self, x: Tensor) -> Tensor:
        offset = self.conv_offset(x)
        with self.rounded():
            return DeformConv2d.forward(self, self.input_quantizer(x), offset)


@quantizes(ModulatedDeformConv2dPack)
class QuantModulatedDeformConv2dPack(
    QuantLayerMixin, ModulatedDeformConv2dPack, ModulatedDeformConv2d
):
    """Modulated deformable convolution with an offset branch. The branch stays
    in float and reads the float input."""

    def forward(self, x: Tensor) -> Tensor:
        *offsets, mask = self.conv_offset(x).chunk(3, dim=1)
        sampling = torch.cat(offsets, 1), mask.sigmoid()
        with self.rounded():
            return ModulatedDeformConv2d.forward(
                self, self.input_quantizer(x), *sampling
            )


@quantizes(TridentConv)
class QuantTridentConv(QuantLayerMixin, TridentConv, BaseModule):
    """One weight at three dilations, with one scale for their inputs."""

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        rounded = [self.input_quantizer(x) for x in inputs]
        with self.rounded():
            return TridentConv.forward(self, rounded)


class StandardisedMixin(Conv2dForwardMixin):
    """Weight standardisation. The standardised weight is rounded; a device
    needs only that one."""

    rounds_weight = False


@quantizes(ConvWS2d)
class QuantConvWS2d(StandardisedMixin, ConvWS2d, nn.Conv2d):
    """Convolution with weight standardisation (arXiv:1903.10520)."""

    eps: float

    def channels_first(self) -> Tensor:
        rows = self.weight.flatten(1)
        mean, std = rows.mean(1, True), rows.std(1, keepdim=True)
        return ((rows - mean) / (std + self.eps)).view_as(self.weight)


@quantizes(ConvAWS2d)
class QuantConvAWS2d(StandardisedMixin, ConvAWS2d, nn.Conv2d):
    """Convolution with adaptive weight standardisation (DetectoRS,
    arXiv:2006.02334)."""

    def channels_first(self) -> Tensor:
        stock: Any = self
        return stock._get_weight(self.weight)


@quantizes(SAConv2d)
class QuantSAConv2d(QuantLayerMixin, SAConv2d, ConvAWS2d):
    """Switchable atrous convolution (DetectoRS, arXiv:2006.02334).

    It has two weights: one for its own dilation and one for three times that
    dilation. They share one scale per output channel. Switch and offsets are
    computed from the float input.
    """

    rounds_weight = False

    def channels_first(self) -> Tensor:
        """Both weights, shape (out, 2 * in / groups, h, w)."""
        stock: Any = self
        near = stock._get_weight(stock.weight)
        return torch.cat((near, near + stock.weight_diff), 1)

    def forward(self, x: Tensor) -> Tensor:
        stock: Any = self
        x = x + stock.pre_context(F.adaptive_avg_pool2d(x, 1))
        around = F.pad(x, (2, 2, 2, 2), mode='reflect')
        around = F.avg_pool2d(around, 5, stride=1)
        switch = stock.switch(around)
        halves = self.quantized_weight().chunk(2, dim=1)
        near, far = (half.contiguous() for half in halves)
        x = self.input_quantizer(x)
        out = switch * self._convolve(x, near, around, 's', 1)
        out = out + (1 - switch) * self._convolve(x, far, around, 'l', 3)
        return out + stock.post_context(F.adaptive_avg_pool2d(out, 1))

    def _convolve(
        self, x: Tensor, weight: Tensor, around: Tensor, size: str, factor: int
    ) -> Tensor:
        geometry = (
            self.stride,
            tuple(factor * n for n in self.padding),
            tuple(factor * n for n in self.dilation),
            self.groups,
        )
        if not self.use_deform:
            return F.conv2d(x, weight, None, *geometry)
        offset = getattr(self, f'offset_{size}')(around)
        return deform_conv2d(x, offset, weight, *geometry, 1)
