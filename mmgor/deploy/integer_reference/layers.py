"""Run quantized layers on integers only, with batch norm folded in.

The operators are in :mod:`mmgor.deploy.integer_reference.operators`.
"""

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

# Half of the range of int32; the other half is for the sums of products.
_BIAS_MAX = 2**30
# More fraction bits make no difference in an output of 8 bits.
_MAX_FRACTION_BITS = 16
_GEOMETRY = ['stride', 'padding', 'dilation', 'groups']


@dataclass(frozen=True)
class FoldedLayer:
    """What a device stores for a layer and the batch norm that follows it.

    An accumulator is ``(sum of products << fraction_bits) + bias``.

    Args:
        weight (Tensor): Integers in the range of the layer's bits, int32,
            output channels first.
        fraction_bits (Tensor): int32, shape (out, ).
        bias (Tensor): int32 in accumulator steps, shape (out, ).
        scale (Tensor): Value of one accumulator step, float64, shape (out, ).
        input_grid (Grid): Grid of the layer's input.
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

    In Jacob et al. (CVPR 2018, section 2.4) a step of the bias is input scale
    times weight scale. With few bits such a step can be larger than a step of
    the output, so that a rounded bias would be several output steps off. Here
    steps are smaller by ``2**fraction_bits``. The factor of a batch norm is
    multiplied into the scale of its channel, and its sign into the integers,
    whose range is symmetric.

    Args:
        layer (nn.Module): QuantConv2d, QuantConvTranspose2d or QuantLinear.
        slot (int): Index of the layer's call in a pass.
        norm (nn.Module, optional): Batch norm after the layer, in evaluation
            mode.

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
    """Fraction bits that int32 has room for with any input, shape (out, )."""
    ends = torch.tensor([[grid.qmin], [grid.qmax]]) - grid.zero_point
    largest = weight.abs().flatten(1).sum(1) * ends.abs().max() + bias.abs()
    # INT32_MAX - 1: rounding the bias may add one step.
    room = torch.log2((integer.INT32_MAX - 1) / largest)
    return room.floor().clamp(0, _MAX_FRACTION_BITS).int()


def _of_output(scale: Tensor, out: int) -> Tensor:
    """Input scales per output channel, also of a depthwise convolution."""
    return (
        scale
        if scale.dim() == 0
        else scale.repeat_interleave(out // len(scale))
    )


def fit_bias(
    weight: Tensor, scale: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Larger accumulator steps for channels whose bias exceeds int32.

    These are channels that a batch norm multiplies by almost 0. Their weights
    shrink in proportion and are rounded, which makes no difference beside a
    bias of 2**30 steps.

    Args:
        weight (Tensor): Integers, output channels first.
        scale (Tensor): Value of one accumulator step, float64, shape (out, ).
        bias (Tensor): Bias in the unit of the output, float64, shape (out, ).

    Returns:
        tuple[Tensor, Tensor]: Weight (int32), and scale (above 0).
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
    inside = [m for m in norm.children() if not isinstance(m, nn.Identity)]
    if inside:
        raise ValueError(
            f'expected a batch norm alone, got {type(norm).__name__} with '
            f'{type(inside[-1]).__name__} inside; give a batch norm with its '
            'parameters and statistics, and apply the rest afterwards.'
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
        layer (nn.Module): The quantized layer, for its kind and geometry.
        folded (FoldedLayer): Integers of the layer.
        x (Tensor): Integers of ``folded.input_grid``, in the shape of the
            layer's input.

    Raises:
        OverflowError: If a sum might leave int32.
        ValueError: If the layer's padding is not zeros, or it is not a
            quantized layer.
    """
    # Shifting the weight shifts the sum of products.
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
    """Quantize the float input of a layer and run the layer on integers.

    The result differs from that of the fake-quantized layer by at most one
    output step, and only where the layer's float result is close to the middle
    of two steps.

    Args:
        layer (nn.Module): QuantConv2d, QuantConvTranspose2d or QuantLinear.
        x (Tensor): Float input of the layer.
        out_grid (Grid): Grid of the result, e.g. that of the next layer's
            input.
        slot (int): Index of the layer's call in a pass.
        norm (nn.Module, optional): Batch norm after the layer, in evaluation
            mode.
        relu (bool): Whether a ReLU follows.

    Returns:
        Tensor: int32, in the shape of the layer's output.

    Raises:
        OverflowError: If a sum might leave int32.
        RuntimeError: If the layer was never calibrated.
        ValueError: If ``norm`` cannot be folded, or ``layer`` cannot be run.
    """
    folded = fold_layer(layer, slot, norm)
    sums = accumulate(layer, folded, folded.input_grid.quantize(x))
    axis = -1 if isinstance(layer, QuantLinear) else 1
    out = requantize_to(sums, folded.scale, out_grid, axis)
    return integer.clip(out, out_grid, low=0) if relu else out
