"""From int32 accumulators to integers of the next layer, in fixed point.

The scheme is that of Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section
2.2: the real factor between two scales becomes an int32 multiplier and a shift
to the right.
"""

import torch
from torch import Tensor

from mmgor.quantization.quantizers.grid import Grid, along

# Products of two int32 numbers have 62 bits.
_MAX_SHIFT = 62


def quantize_multiplier(real: float | Tensor) -> tuple[Tensor, Tensor]:
    """A factor as ``multiplier / 2**shift`` (Jacob et al., eq. 5-6).

    Args:
        real (float | Tensor): Above 0 and below 2**31 - 0.5, from where on
            it would round to 2**31. Any shape.

    Returns:
        tuple[Tensor, Tensor]: int32, shape of ``real`` each. The multiplier
        has its highest bit at position 30 (31 significant bits), the shift
        goes to the right and is 0 to 62. Factors below 2**-32, which take
        every int32 to 0, have fewer bits.

    Raises:
        ValueError: If a factor is outside of its range or not finite.
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
    """``values * multiplier / 2**shift``, rounded half to even, int64.

    Half to even is how quantizers and ONNX's QuantizeLinear round.

    Args:
        values (Tensor): Within int32, any shape.
        multiplier (Tensor): From :func:`quantize_multiplier`, broadcastable.
        shift (Tensor): From :func:`quantize_multiplier`, broadcastable.
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
    """From an accumulator to integers of the next layer, int32.

    ``clamp(round(accumulator * multiplier / 2**shift) + zero_point)``,
    rounded half to even (Jacob et al., eq. 4-6).

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
    """:func:`requantize` to a grid.

    Args:
        accumulator (Tensor): int32, any shape.
        scale (Tensor): Value of one accumulator step, shape () or (C, ).
        grid (Grid): Of the result.
        axis (int): The accumulator's axis that C runs along.
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
