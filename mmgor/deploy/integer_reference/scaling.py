"""Requantize int32 accumulators to integers of the next layer.

This follows Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 2.2: the real
factor between two scales becomes an int32 multiplier and a right shift.
"""

import torch
from torch import Tensor

from mmgor.quantization.quantizers.grid import Grid, along

# Products of two int32 numbers have 62 bits.
_MAX_SHIFT = 62


def quantize_multiplier(real: float | Tensor) -> tuple[Tensor, Tensor]:
    """A factor as ``multiplier / 2**shift`` (Jacob et al., eq. 5-6).

    Args:
        real (float | Tensor): Factors of any shape, above 0 and below
            2**31 - 0.5; larger ones would round to 2**31.

    Returns:
        tuple[Tensor, Tensor]: Multiplier and right shift, int32, shape of
        ``real``. The multiplier has its highest bit at position 30 (31
        significant bits); the shift is 0 to 62. Factors below 2**-32, with
        which every int32 becomes 0, have fewer significant bits.

    Raises:
        ValueError: If a factor is out of range or not finite.
    """
    real = torch.as_tensor(real, dtype=torch.float64)
    outside = ~((real > 0) & (real < 2**31 - 0.5))
    if outside.any():
        raise ValueError(
            'a requantization factor (input scale * weight scale / output '
            'scale) must be above 0 and below 2**31 - 0.5, got '
            f'{real[outside].flatten()[0].item()}. Give an output grid with '
            'a finite scale above 0.'
        )
    mantissa, exponent = torch.frexp(real)
    multiplier = torch.round(mantissa * 2.0**31).to(torch.int64)
    carry = multiplier == 2**31
    multiplier = torch.where(carry, 2**30, multiplier)
    shift = 31 - exponent - carry.to(torch.int32)
    excess = (shift - _MAX_SHIFT).clamp(0, _MAX_SHIFT)
    return (multiplier >> excess).int(), shift.clamp(max=_MAX_SHIFT).int()


def rescale(values: Tensor, multiplier: Tensor, shift: Tensor) -> Tensor:
    """``values * multiplier / 2**shift``, rounded half to even.

    Quantizers and ONNX's QuantizeLinear also round half to even.

    Args:
        values (Tensor): Integers in the range of int32, any shape.
        multiplier (Tensor): From :func:`quantize_multiplier`, broadcastable.
        shift (Tensor): From :func:`quantize_multiplier`, broadcastable.

    Returns:
        Tensor: int64, broadcast shape.
    """
    product = values.to(torch.int64) * multiplier
    floor = product >> shift
    twice = (product - (floor << shift)) * 2
    whole = torch.ones_like(twice) << shift
    odd = (floor & 1).bool()
    return floor + ((twice > whole) | ((twice == whole) & odd)).long()


def requantize(
    accumulator: Tensor,
    multiplier: Tensor,
    shift: Tensor,
    zero_point: int | Tensor,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Integers of the next layer, int32, from an accumulator.

    They are ``clamp(round(accumulator * multiplier / 2**shift) +
    zero_point)``, rounded half to even (Jacob et al., eq. 4-6).

    Args:
        accumulator (Tensor): int32, any shape.
        multiplier (Tensor): From :func:`quantize_multiplier`, broadcastable.
        shift (Tensor): From :func:`quantize_multiplier`, broadcastable.
        zero_point (int | Tensor): Integer of the value 0, broadcastable.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.
    """
    levels = rescale(accumulator, multiplier, shift) + zero_point
    return levels.clamp(qmin, qmax).to(torch.int32)


def requantize_to(
    accumulator: Tensor, scale: Tensor, grid: Grid, axis: int = 1
) -> Tensor:
    """Requantize an accumulator to a grid; see :func:`requantize`.

    Args:
        accumulator (Tensor): int32, any shape.
        scale (Tensor): Value of one accumulator step, shape () or (C, ).
        grid (Grid): Grid of the result.
        axis (int): Axis of the accumulator with C entries.
    """
    dims = accumulator.dim()
    multiplier, shift = quantize_multiplier(
        along(scale.double(), dims, axis)
        / along(grid.scale.double(), dims, grid.axis)
    )
    zero_point = along(grid.zero_point, dims, grid.axis)
    return requantize(
        accumulator, multiplier, shift, zero_point, grid.qmin, grid.qmax
    )
