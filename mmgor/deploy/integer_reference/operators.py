"""Operators on integers only, as a device computes them.

Products of integers are added up in int32. One fixed-point multiplication (see
:mod:`.scaling`) turns the sum into an integer of the next layer (Jacob et al.,
CVPR 2018). This is a reference to compare a device with, not a fast way to run
a network.

torch does not have an int32 convolution on every machine. So sums are computed
in float64, which is exact for integers below 2**53. It is checked beforehand
that no partial sum can leave int32, whatever the order of the terms.
"""

from math import inf, prod

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgor.quantization import Grid

from .scaling import along, quantize_multiplier, requantize_to, rescale

INT32_MAX = 2**31 - 1
#: A sum of two tensors is computed in steps of the larger of their two steps
#: divided by 2 to this power.
ADD_FRACTION_BITS = 16
Size = int | tuple[int, ...]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    zero_point: Tensor,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of integers.

    The border is padded with the zero point, which need not be in the
    integers' range: it is subtracted from ``x`` first.

    Args:
        x (Tensor): Integers of shape (N, C, H, W).
        weight (Tensor): Integers of shape (out, C / groups, h, w).
        bias (Tensor): int32 in accumulator steps, shape (out, ).
        zero_point (Tensor): Zero point of ``x``, shape () or (C, ).
        stride (int | tuple): See ``nn.Conv2d``, also for the rest.
        padding (int | tuple | str): Rows and columns at each border.
        dilation (int | tuple): Distance of the kernel's taps.
        groups (int): Channel groups.

    Returns:
        Tensor: int32, in the shape of the stock layer's output.

    Raises:
        OverflowError: If a sum might leave int32.
    """
    x = _centred(x, zero_point)
    _check_sums(x, weight.abs().flatten(1).sum(1), bias)
    sums = F.conv2d(
        x.double(),
        weight.double(),
        bias.double(),
        stride,
        padding,
        dilation,
        groups,
    )
    return sums.to(torch.int32)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    zero_point: Tensor,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of integers, like :func:`conv2d`.

    Args:
        x (Tensor): Integers of shape (N, C, H, W).
        weight (Tensor): Integers of shape (C, out / groups, h, w).
        bias (Tensor): int32 in accumulator steps, shape (out, ).
        zero_point (Tensor): Zero point of ``x``, shape () or (C, ).
        stride (int | tuple): See ``nn.ConvTranspose2d``, also for the rest.
        padding (int | tuple): Rows and columns cut off at each border.
        output_padding (int | tuple): Rows and columns added at one side.
        groups (int): Channel groups.
        dilation (int | tuple): Distance of the kernel's taps.

    Raises:
        OverflowError: If a sum might leave int32.
    """
    x = _centred(x, zero_point)
    sizes = weight.abs().unflatten(0, (groups, -1)).sum((1, 3, 4)).flatten()
    _check_sums(x, sizes, bias)
    sums = F.conv_transpose2d(
        x.double(),
        weight.double(),
        bias.double(),
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )
    return sums.to(torch.int32)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor, zero_point: Tensor
) -> Tensor:
    """Matrix product of integers; int32 of shape (..., out).

    Args:
        x (Tensor): Integers of shape (..., C).
        weight (Tensor): Integers of shape (out, C).
        bias (Tensor): int32 in accumulator steps, shape (out, ).
        zero_point (Tensor): Zero point of ``x``, shape ().

    Raises:
        OverflowError: If a sum might leave int32.
    """
    x = x - zero_point
    _check_sums(x, weight.abs().sum(1), bias)
    sums = F.linear(x.double(), weight.double(), bias.double())
    return sums.to(torch.int32)


def add(
    a: Tensor, b: Tensor, grid_a: Grid, grid_b: Grid, out_grid: Grid
) -> Tensor:
    """Sum of two tensors on different grids, as integers of a third grid.

    Both are first rounded (half to even) to steps of ``2**-ADD_FRACTION_BITS``
    times the larger of their two steps, then added and requantized.

    Args:
        a (Tensor): Integers of any shape.
        b (Tensor): Integers of the same shape.
        grid_a (Grid): Grid of ``a``.
        grid_b (Grid): Grid of ``b``.
        out_grid (Grid): Grid of the result.

    Raises:
        OverflowError: If the sum leaves int32.
    """
    step = torch.maximum(grid_a.scale.double(), grid_b.scale.double())
    step = step / 2**ADD_FRACTION_BITS
    terms = []
    for x, grid in ((a, grid_a), (b, grid_b)):
        factor = along(grid.scale.double() / step, x.dim())
        terms.append(
            rescale(_centred(x, grid.zero_point), *quantize_multiplier(factor))
        )
    _check_int32(_peak(terms[0]) + _peak(terms[1]))
    return requantize_to(terms[0] + terms[1], step, out_grid)


def max_pool2d(
    x: Tensor, kernel_size: Size, stride: Size, padding: Size = 0
) -> Tensor:
    """Largest integer of each window; the grid stays that of ``x``.

    Args:
        x (Tensor): Integers of shape (N, C, H, W).
        kernel_size (int | tuple): See ``nn.MaxPool2d``, also for the rest.
        stride (int | tuple): Distance of the windows.
        padding (int | tuple): Rows and columns that are never the largest.
    """
    pooled = F.max_pool2d(x.double(), kernel_size, stride, padding)
    return pooled.to(torch.int32)


def avg_pool2d(
    x: Tensor,
    grid: Grid,
    out_grid: Grid,
    kernel_size: tuple[int, int],
    stride: Size,
    padding: Size = 0,
) -> Tensor:
    """Mean of each window: a sum in int32, which is divided in requantizing.

    Args:
        x (Tensor): Integers of shape (N, C, H, W).
        grid (Grid): Grid of ``x``.
        out_grid (Grid): Grid of the result.
        kernel_size (tuple): Height and width of a window.
        stride (int | tuple): Distance of the windows.
        padding (int | tuple): Rows and columns of zeros, which count
            (``count_include_pad`` of ``nn.AvgPool2d``).

    Raises:
        OverflowError: If a sum might leave int32.
    """
    x, count = _centred(x, grid.zero_point), prod(kernel_size)
    _check_int32(_peak(x) * count)
    sums = F.avg_pool2d(
        x.double(), kernel_size, stride, padding, divisor_override=1
    ).to(torch.int32)
    return requantize_to(sums, grid.scale.double() / count, out_grid)


def clip(
    x: Tensor, grid: Grid, low: float = -inf, high: float = inf
) -> Tensor:
    """Clamp to the integers of two values; ReLU is ``low=0``.

    Rounding keeps the order of values, so clipping before or after quantizing
    gives the same result.

    Args:
        x (Tensor): Integers of any shape.
        grid (Grid): Grid of ``x``.
        low (float): Smallest value.
        high (float): Largest value.
    """
    bounds = (
        grid.quantize(torch.full([1] * x.dim(), value))
        for value in (low, high)
    )
    return torch.clamp(x, *bounds)


def _centred(x: Tensor, zero_point: Tensor) -> Tensor:
    return x - along(zero_point, x.dim())


def _peak(x: Tensor) -> int:
    return int(x.abs().max()) if x.numel() else 0


def _check_sums(x: Tensor, sizes: Tensor, bias: Tensor) -> None:
    """Refuse sums that might leave int32.

    Args:
        x (Tensor): Integers without their zero point.
        sizes (Tensor): Sum of the weight's magnitudes per output channel.
        bias (Tensor): int32 in accumulator steps, shape (out, ).
    """
    _check_int32(int((sizes.long() * _peak(x) + bias.long().abs()).max()))


def _check_int32(largest: int) -> None:
    if largest > INT32_MAX:
        raise OverflowError(
            f'an accumulator could reach {largest}; expected at most '
            f'{INT32_MAX} (int32). Give the layer fewer bits in the quant '
            'config: overrides={"<layer>": dict(w_bits=..., a_bits=...)}.'
        )
