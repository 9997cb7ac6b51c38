"""Convolutions and linears whose weight and input are fake-quantized.

A stock layer becomes a quantized one by changing its class in place
(:func:`to_quantized`): the object, its parameters, hooks and every reference
to it stay. The stock class is a direct base, because mmengine's initialisers
look for it there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mmcv.cnn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.grid import Grid

#: Stock class -> quantized class. By identity: a class of the same name, and
#: a subclass, may compute something else.
QUANTIZED_CLASSES: dict[type, Any] = {}
# What stands in for a method of the class, or for the parameter, where it is
# an attribute of the layer itself.
_PATCHES = ('forward', '_conv_forward', 'weight')


def quantizes(*stock: type) -> Callable[[type], type]:
    """Class decorator: layers of exactly these classes become this one.

    Args:
        *stock (type): Classes of layers with a parameter ``weight``.
    """

    def register(cls: type) -> type:
        QUANTIZED_CLASSES.update(dict.fromkeys(stock, cls))
        return cls

    return register


class QuantLayerMixin:
    """What a quantized layer has besides its stock class.

    Attributes:
        weight_quantizer (BaseQuantizer): Applied to what
            :meth:`channels_first` gives.
        input_quantizer (BaseQuantizer): Applied to the input.
        rounds_weight (bool): Whether that is the parameter ``weight`` itself,
            and not a weight which the layer computes from it.
    """

    weight: Tensor
    weight_quantizer: BaseQuantizer
    input_quantizer: BaseQuantizer
    rounds_weight = True

    def quantized_weight(self) -> Tensor:
        """The weight as the device will see it."""
        return self.weight_quantizer(self.channels_first())

    def channels_first(self) -> Tensor:
        """The weight with its output channels on the first axis."""
        return self.weight

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Whoever reads ``weight`` meanwhile finds :meth:`quantized_weight`.

        An entry of the instance hides the parameter, and the state dict does
        not know it.
        """
        self.__dict__['weight'] = self.quantized_weight()
        try:
            yield
        finally:
            del self.__dict__['weight']

    @torch.no_grad()
    def weight_integers(self) -> tuple[Tensor, Grid]:
        """The weight as the device stores it.

        Returns:
            tuple[Tensor, Grid]: int32 integers in the shape of
            :meth:`channels_first`, and what they stand for.

        Raises:
            RuntimeError: If the quantizer was never calibrated.
        """
        weight = self.channels_first()
        grid = self.weight_quantizer.grid(weight)
        return grid.quantize(self.weight_quantizer(weight)), grid

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Ranges go with the weight that they were found for.

        Called before the quantizers load theirs: with the weight, the old
        ranges go; without it (another shape, or missing), those of the file
        are left alone.
        """
        stored = state_dict.get(f'{prefix}weight')
        if getattr(stored, 'shape', None) == self.weight.shape:
            self.weight_quantizer.forget_range()
            self.input_quantizer.forget_range()
        else:
            own = f'{prefix}weight_quantizer.', f'{prefix}input_quantizer.'
            for key in [k for k in state_dict if k.startswith(own)]:
                del state_dict[key]
        stock: Any = super()
        stock._load_from_state_dict(state_dict, prefix, *args)


class Conv2dForwardMixin(QuantLayerMixin):
    """The convolution of the quantized input with the quantized weight."""

    def forward(self, input: Tensor) -> Tensor:
        stock: Any = self
        return stock._conv_forward(
            self.input_quantizer(input), self.quantized_weight(), stock.bias
        )


@quantizes(nn.Conv2d, mmcv.cnn.Conv2d)
class QuantConv2d(Conv2dForwardMixin, nn.Conv2d):
    """``nn.Conv2d`` with quantized weight and input."""


def swap_channels(weight: Tensor, groups: int) -> Tensor:
    """(in, out / groups, ...) to (out, in / groups, ...), and back."""
    grouped = weight.unflatten(0, (groups, -1))
    return grouped.transpose(1, 2).flatten(0, 1)


@quantizes(nn.ConvTranspose2d, mmcv.cnn.ConvTranspose2d)
class QuantConvTranspose2d(QuantLayerMixin, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with quantized weight and input.

    Its weight has the shape (in, out / groups, h, w); a scale belongs to an
    output channel, which is an entry of the second axis in one group.
    """

    def quantized_weight(self) -> Tensor:
        return swap_channels(super().quantized_weight(), self.groups)

    def channels_first(self) -> Tensor:
        """Shape (out, in / groups, h, w)."""
        return swap_channels(self.weight, self.groups)

    def forward(
        self, input: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        # Typed for all dimensions at once in the base class.
        stock: Any = self
        output_padding = stock._output_padding(
            input,
            output_size,
            self.stride,
            self.padding,
            self.kernel_size,
            2,
            self.dilation,
        )
        return F.conv_transpose2d(
            self.input_quantizer(input),
            self.quantized_weight(),
            self.bias,
            self.stride,
            stock.padding,
            output_padding,
            self.groups,
            self.dilation,
        )


@quantizes(nn.Linear, mmcv.cnn.Linear)
class QuantLinear(QuantLayerMixin, nn.Linear):
    """``nn.Linear`` with quantized weight and input."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(
            self.input_quantizer(input), self.quantized_weight(), self.bias
        )


def is_quantizable(layer: nn.Module) -> bool:
    """Whether ``layer`` is of a class that has a quantized one, untouched.

    A weight that hooks compute (``weight_norm``, ``spectral_norm``, pruning)
    and a forward put on the layer itself are not ours to replace.
    """
    return type(layer) in QUANTIZED_CLASSES and not any(
        name in layer.__dict__ for name in _PATCHES
    )


def to_quantized(
    layer: Any,
    weight_quantizer: BaseQuantizer,
    input_quantizer: BaseQuantizer,
) -> None:
    """Turn a stock layer into its quantized class, in place.

    The quantizers' parameters follow ``weight.requires_grad``: a frozen
    stage's scales stay frozen too, which DDP insists on.

    Args:
        layer (nn.Module): A layer for which :func:`is_quantizable` holds.
        weight_quantizer (BaseQuantizer): Registered as a child module.
        input_quantizer (BaseQuantizer): Registered as a child module.
    """
    layer.__class__ = QUANTIZED_CLASSES[type(layer)]
    trainable = layer.weight.requires_grad
    layer.weight_quantizer = weight_quantizer.requires_grad_(trainable)
    layer.input_quantizer = input_quantizer.requires_grad_(trainable)
