"""Convolutions and linears whose weight and input are fake-quantized.

Here a layer asks for its rounded weight: ``QuantLayerMixin.quantized_weight``
calls the layer's ``weight_quantizer``. The rounding itself is
:func:`mmgor.quantization.quantizers.functional.fake_quantize`.

:func:`to_quantized` turns a stock layer into a quantized one by changing its
class in place. The object, its parameters, its hooks and all references to it
stay. The stock class is a direct base of the quantized class, because
mmengine's initialisers look for it there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import mmcv.cnn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.grid import Grid
from mmgor.quantization.quantizers.recomputation import (
    is_recomputed,
    may_be_recomputed,
)

#: Stock class -> quantized class. A layer must be of exactly the stock class:
#: a subclass may compute something else.
QUANTIZED_CLASSES: dict[type, Any] = {}
# Library -> the file with its quantized classes, for optional libraries.
_OPTIONAL = {'timm': '.timm_layers'}
# If the layer object itself has one of these attributes, something has
# replaced the method of its class or its parameter.
_PATCHES = ('forward', '_conv_forward', 'weight')


def quantizes(*stock: type) -> Callable[[type], type]:
    """Class decorator that registers the quantized class of stock classes.

    Args:
        *stock (type): Classes of layers that have a parameter ``weight``.
    """

    def register(cls: type) -> type:
        QUANTIZED_CLASSES.update(dict.fromkeys(stock, cls))
        return cls

    return register


class QuantLayerMixin:
    """What quantized layers add to their stock class.

    Attributes:
        weight_quantizer (BaseQuantizer): Rounds the weight that
            :meth:`channels_first` returns.
        input_quantizer (BaseQuantizer): Rounds the input.
        rounds_weight (bool): Whether the parameter ``weight`` itself is
            rounded, and not a weight that the layer computes from it.
        is_edge (bool): Whether it is a first or prediction layer.
    """

    weight: Tensor
    weight_quantizer: BaseQuantizer
    input_quantizer: BaseQuantizer
    rounds_weight = True
    is_edge = False
    _in_pass = False
    _rounded: tuple[int, Tensor] | None = None

    @property
    def owns_input_quantizer(self) -> bool:
        """Whether the input quantizer is this layer's child. If not, another
        layer that reads the same tensor owns it."""
        layer: Any = self
        return 'input_quantizer' in layer._modules

    def quantized_weight(self) -> Tensor:
        """The weight rounded to its integer grid, in float.

        All quantized layers compute with it. A layer that is called several
        times between :meth:`start_pass` and :meth:`end_pass`, as a head is for
        the levels of a pyramid, rounds it once.
        """
        if not self._in_pass or self._must_round_again():
            return self.weight_quantizer(self.channels_first())
        version = self.weight._version  # grows with every change in place
        if self._rounded is None or self._rounded[0] != version:
            rounded = self.weight_quantizer(self.channels_first())
            self._rounded = version, rounded
        return self._rounded[1]

    def start_pass(self) -> None:
        """Until :meth:`end_pass`, the weight does not change."""
        self._in_pass, self._rounded = True, None

    def end_pass(self) -> None:
        """The weight may change from here on."""
        self._in_pass, self._rounded = False, None

    def __getstate__(self) -> dict[str, Any]:
        """For copies, also of a layer whose pass was broken off."""
        passing = '_in_pass', '_rounded'
        return {k: v for k, v in self.__dict__.items() if k not in passing}

    def _must_round_again(self) -> bool:
        """Whether one tensor can't serve all calls: calibration looks at each
        call, and a checkpoint would find other tensors when it runs a call
        again. Outside of training it would save little."""
        layer: Any = self
        return (
            not (layer.training and torch.is_grad_enabled())
            or self.weight_quantizer.observer is not None
            or torch.compiler.is_compiling()
            or is_recomputed()
            or may_be_recomputed(layer.training)
        )

    def channels_first(self) -> Tensor:
        """The weight with its output channels on the first axis."""
        return self.weight

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """In the block, the attribute ``weight`` is the quantized weight.

        The attribute of the instance hides the parameter and is not part of
        the state dict.
        """
        self.__dict__['weight'] = self.quantized_weight()
        try:
            yield
        finally:
            del self.__dict__['weight']

    @torch.no_grad()
    def weight_integers(self) -> tuple[Tensor, Grid]:
        """The integers of the quantized weight.

        Returns:
            tuple[Tensor, Grid]: int32 integers in the shape of
            :meth:`channels_first`, and the grid that turns them into values.

        Raises:
            RuntimeError: If the quantizer was never calibrated.
        """
        weight = self.channels_first()
        grid = self.weight_quantizer.grid(weight)
        return grid.quantize(self.weight_quantizer(weight)), grid

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Load ranges only together with the weight that they belong to.

        torch calls this method before those of the quantizers. If the file's
        weight fits, the present ranges are reset, so that only those of the
        file remain. If it does not fit or is missing, the file's ranges are
        ignored.
        """
        stored = state_dict.get(f'{prefix}weight')
        if getattr(stored, 'shape', None) == self.weight.shape:
            self.weight_quantizer.forget_range()
            if self.owns_input_quantizer:
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
    """Shape (in, out / groups, ...) to (out, in / groups, ...), or back."""
    grouped = weight.unflatten(0, (groups, -1))
    return grouped.transpose(1, 2).flatten(0, 1)


@quantizes(nn.ConvTranspose2d, mmcv.cnn.ConvTranspose2d)
class QuantConvTranspose2d(QuantLayerMixin, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with quantized weight and input.

    Its weight has the shape (in, out / groups, h, w). Per-channel scales
    belong to output channels, which lie on the second axis of each group.
    """

    def quantized_weight(self) -> Tensor:
        return swap_channels(super().quantized_weight(), self.groups)

    def channels_first(self) -> Tensor:
        """Shape (out, in / groups, h, w)."""
        return swap_channels(self.weight, self.groups)

    def forward(
        self, input: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        # The base class annotates its arguments for 1 to 3 dimensions at once.
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
    """Whether a layer's class has a quantized class, and the layer is plain.

    A layer is not plain if hooks compute its weight (``weight_norm``,
    ``spectral_norm``, pruning) or if its forward method was replaced.

    Raises:
        ImportError: If it is a layer of a timm older than 0.9.
    """
    kind = type(layer)
    library = kind.__module__.partition('.')[0]
    if library in _OPTIONAL:
        try:
            import_module(_OPTIONAL[library], __package__)
        except ImportError as error:
            raise ImportError(
                f'{kind.__name__} is a layer of timm, which could not be '
                f'imported as expected of timm >= 0.9: {error}. Type: pip '
                "install 'timm>=0.9'"
            ) from error
    return kind in QUANTIZED_CLASSES and not any(
        name in layer.__dict__ for name in _PATCHES
    )


def to_quantized(
    layer: Any,
    weight_quantizer: BaseQuantizer,
    input_quantizer: BaseQuantizer,
) -> None:
    """Turn a stock layer into its quantized class, in place.

    The quantizers' parameters take over ``weight.requires_grad``, so that the
    scales of a frozen stage are frozen as well. DDP requires that.

    Args:
        layer (nn.Module): A layer for which :func:`is_quantizable` holds.
        weight_quantizer (BaseQuantizer): Registered as a child module.
        input_quantizer (BaseQuantizer): Registered as a child module.
    """
    layer.__class__ = QUANTIZED_CLASSES[type(layer)]
    trainable = layer.weight.requires_grad
    layer.weight_quantizer = weight_quantizer.requires_grad_(trainable)
    layer.input_quantizer = input_quantizer.requires_grad_(trainable)
