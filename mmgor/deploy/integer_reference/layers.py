"""Quantized layers, run on integers alone (see ``integer``)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgor.quantization import (
    Grid,
    QuantConv2d,
    QuantConvTranspose2d,
    QuantLinear,
)
from mmgor.quantization.layers.quant_layers import swap_channels

from . import operators as integer
from .scaling import along, requantize_to

# Of int32; the other half is for the sums of products.
_BIAS_MAX = 2**30
# More cannot be seen in 8 bits of output.
_MAX_FRACTION_BITS = 16
_GEOMETRY = ['stride', 'padding', 'dilation', 'groups']


@dataclass(frozen=True)
class FoldedLayer:
    """What a device stores of a layer and the batch norm that follows.

    An accumulator is ``(sum of products << fraction_bits) + bias``.

    Args:
        weight (Tensor): Integers of the layer's bits, int32, output channels
            first.
        fraction_bits (Tensor): int32, shape (out, ).
        bias (Tensor): int32 in accumulator steps, shape (out, ).
        scale (Tensor): Value of one accumulator step, float64, shape (out, ).
        input_grid (Grid): Of the layer's input.
    """

    weight: Tensor
    fraction_bits: Tensor
    bias: Tensor
    scale: Tensor
    input_grid: Grid


@torch.no_grad()
def fold_layer(
    layer: Any, slot: int = 0, norm: nn.Module | None = None
) -> FoldedLayer:
    """Integers of a quantized layer, with a batch norm folded in.

    The bias is in steps of input scale times weight scale (Jacob et al., CVPR
    2018, section 2.4), divided by ``2**fraction_bits``: with few bits such a
    step can be larger than one of the output, and a bias rounded to it would
    be several off. The factor of a batch norm goes into the scale of its
    channel, its sign into the integers, whose range is symmetric.

    Args:
        layer (nn.Module): QuantConv2d, QuantConvTranspose2d or QuantLinear.
        slot (int): Which call of a pass.
        norm (nn.Module, optional): Batch norm after it, in evaluation mode.

    Raises:
        RuntimeError: If the layer was never calibrated.
        ValueError: If ``norm`` cannot be folded.
    """
    weight, weight_grid = layer.weight_integers()
    grid = layer.input_quantizer.grid(torch.zeros([1] * weight.dim()), slot)
    out = len(weight)
    scale = weight_grid.scale.double().expand(out) * _of_output(
        grid.scale.double(), out
    )
    bias = scale.new_zeros(out) if layer.bias is None else layer.bias.double()
    if norm is not None:
        factor, offset = _as_affine(norm)
        weight = weight * along(factor.sign().int(), weight.dim(), 0)
        scale, bias = scale * factor.abs(), bias * factor + offset
    weight, scale = fit_bias(weight, scale, bias)
    bits = _fraction_bits(weight, bias / scale, grid)
    scale = scale / (1 << bits)
    return FoldedLayer(
        weight, bits, torch.round(bias / scale).int(), scale, grid
    )


def _fraction_bits(weight: Tensor, bias: Tensor, grid: Grid) -> Tensor:
    """What int32 has to spare, whatever the input, int32 of shape (out, )."""
    ends = torch.tensor([[grid.qmin], [grid.qmax]]) - grid.zero_point
    largest = weight.abs().flatten(1).sum(1) * ends.abs().max() + bias.abs()
    # One step is for the rounding of the bias.
    room = torch.log2((integer.INT32_MAX - 1) / largest)
    return room.floor().clamp(0, _MAX_FRACTION_BITS).int()


def _of_output(scale: Tensor, out: int) -> Tensor:
    """Input scales of a depthwise convolution, one an output channel."""
    return (
        scale
        if scale.dim() == 0
        else scale.repeat_interleave(out // len(scale))
    )


def fit_bias(
    weight: Tensor, scale: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Coarser accumulator steps where a bias would not fit into int32.

    That is where a batch norm multiplies by (almost) zero. The weight becomes
    smaller in proportion and is rounded; against a bias of 2**30 steps that
    cannot be seen.

    Args:
        weight (Tensor): Integers, output channels first.
        scale (Tensor): Value of one accumulator step, float64, shape (out, ).
        bias (Tensor): In the unit of the output, float64, shape (out, ).

    Returns:
        tuple[Tensor, Tensor]: Weight (int32) and scale, above 0.
    """
    fitted = torch.maximum(scale, bias.abs() / _BIAS_MAX)
    fitted = torch.where(fitted > 0, fitted, 1.0)
    share = along(scale / fitted, weight.dim(), 0)
    return torch.round(weight * share).int(), fitted


def _as_affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Factor and offset of each channel, float64, shape (C, )."""
    foldable = isinstance(norm, _BatchNorm) and norm.running_var is not None
    if not foldable:
        raise ValueError(
            'only batch norm with running statistics can be folded into a '
            f'layer, got {type(norm).__name__}; run others in float.'
        )
    if norm.training:
        raise ValueError(
            'batch norm can be folded in evaluation mode only: call '
            'model.eval() first.'
        )
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    offset = torch.zeros_like(factor)
    if norm.affine:
        factor, offset = factor * norm.weight.double(), norm.bias.double()
    return factor, offset - norm.running_mean.double() * factor


def _attributes(layer: Any, names: list[str]) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in names}


def accumulate(layer: Any, folded: FoldedLayer, x: Tensor) -> Tensor:
    """The layer's int32 accumulator.

    Args:
        layer (nn.Module): The quantized layer: its kind and geometry.
        folded (FoldedLayer): Its integers.
        x (Tensor): Integers of ``folded.input_grid``, in the layer's shape.

    Raises:
        OverflowError: If a sum might leave int32.
        ValueError: If the layer pads with anything but zeros, or is none of
            the quantized kinds.
    """
    # To shift the weight is to shift the sum of products.
    bits = along(folded.fraction_bits, folded.weight.dim(), 0)
    weight, bias = folded.weight << bits, folded.bias
    zero_point = folded.input_grid.zero_point
    if getattr(layer, 'padding_mode', 'zeros') != 'zeros':
        raise ValueError(
            f"expected padding_mode='zeros', got {layer.padding_mode!r}; "
            'run this layer in float: overrides={"<layer>": None}.'
        )
    if isinstance(layer, QuantConv2d):
        geometry = _attributes(layer, _GEOMETRY)
        return integer.conv2d(x, weight, bias, zero_point, **geometry)
    if isinstance(layer, QuantConvTranspose2d):
        weight = swap_channels(weight, layer.groups)
        geometry = _attributes(layer, [*_GEOMETRY, 'output_padding'])
        return integer.conv_transpose2d(
            x, weight, bias, zero_point, **geometry
        )
    if isinstance(layer, QuantLinear):
        return integer.linear(x, weight, bias, zero_point)
    raise ValueError(
        'expected QuantConv2d, QuantConvTranspose2d or QuantLinear, got '
        f'{type(layer).__name__}.'
    )


@torch.no_grad()
def integer_layer(
    layer: Any,
    x: Tensor,
    out_grid: Grid,
    slot: int = 0,
    norm: nn.Module | None = None,
    relu: bool = False,
) -> Tensor:
    """Run a quantized layer on integers, from its float input on.

    The result is at most one output step from the fake-quantized layer's,
    whose float result may lie close to where rounding turns.

    Args:
        layer (nn.Module): QuantConv2d, QuantConvTranspose2d or QuantLinear.
        x (Tensor): Float input of the layer.
        out_grid (Grid): Of the result, e.g. the next layer's input grid.
        slot (int): Which call of a pass.
        norm (nn.Module, optional): Batch norm after it, in evaluation mode.
        relu (bool): Whether a ReLU follows.

    Returns:
        Tensor: int32, in the shape of the layer's output.

    Raises:
        OverflowError: If a sum might leave int32.
        RuntimeError: If the layer was never calibrated.
        ValueError: If ``norm`` or the layer is of another kind.
    """
    folded = fold_layer(layer, slot, norm)
    sums = accumulate(layer, folded, folded.input_grid.quantize(x))
    axis = -1 if isinstance(layer, QuantLinear) else 1
    out = requantize_to(sums, folded.scale, out_grid, axis)
    return integer.clip(out, out_grid, low=0) if relu else out
