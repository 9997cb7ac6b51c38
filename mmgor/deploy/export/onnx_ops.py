"""Two torch operators for quantization, and their translation to ONNX.

torch's exporter keeps a custom operator as one node and looks up its
translation. So the graph has QuantizeLinear and DequantizeLinear where
training had fake quantization, instead of its single additions and products.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mmgor.deploy.optional_imports import require
from mmgor.quantization.quantizers.grid import along

from .deform_conv import write_deform_conv2d
from .graph_nms import write_select_detections

#: From this version on DequantizeLinear has int4.
OPSET = 21
_STORED = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


@torch.library.custom_op('mmgor::quantize_dequantize', mutates_args=())
def quantize_dequantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    axis: int,
) -> Tensor:
    """Round to the grid, as QuantizeLinear, Clip and DequantizeLinear do.

    Args:
        x (Tensor): float32, any shape.
        scale (Tensor): Shape () or (C, ).
        zero_point (Tensor): uint8 or int8, of the shape of ``scale``. Its
            dtype is the dtype of the integers.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.
        axis (int): The axis of ``x`` with C entries.

    Returns:
        Tensor: float32, shape of ``x``.
    """
    step = along(scale, x.dim(), axis)
    zero = along(zero_point.float(), x.dim(), axis)
    levels = (torch.round(x / step) + zero).clamp(qmin, qmax)
    return (levels - zero) * step


@quantize_dequantize.register_fake
def _(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    axis: int,
) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op('mmgor::dequantize', mutates_args=())
def dequantize(integers: Tensor, scale: Tensor) -> Tensor:
    """The float values of integer weights, as DequantizeLinear gives them.

    Args:
        integers (Tensor): int8, output channels first.
        scale (Tensor): Shape () or (output channels, ).

    Returns:
        Tensor: float32, shape of ``integers``.
    """
    return integers.float() * along(scale, integers.dim(), 0)


@dequantize.register_fake
def _(integers: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(integers, dtype=torch.float32)


@cache
def translations(opset: int = OPSET) -> dict[Any, Callable]:
    """The function that writes the ONNX nodes of each custom operator.

    Args:
        opset (int): Version of the nodes, at least 13.
    """
    op: Any = getattr(require('onnxscript'), f'opset{opset}')
    helper = require('onnx.numpy_helper')

    def write_quantize_dequantize(
        x: Any, scale: Any, zero_point: Any, qmin: int, qmax: int, axis: int
    ) -> Any:
        integers = op.QuantizeLinear(x, scale, zero_point, axis=axis)
        dtype = torch.uint8 if qmin >= 0 else torch.int8
        if (qmin, qmax) != _STORED[dtype]:
            bounds = [
                helper.from_array(torch.tensor(b, dtype=dtype).numpy())
                for b in (qmin, qmax)
            ]
            low, high = (op.Constant(value=bound) for bound in bounds)
            integers = op.Clip(integers, low, high)
        return op.DequantizeLinear(integers, scale, zero_point, axis=axis)

    def write_dequantize(integers: Any, scale: Any) -> Any:
        return op.DequantizeLinear(integers, scale, axis=0)

    names = torch.ops.mmgor
    return {
        names.quantize_dequantize.default: write_quantize_dequantize,
        names.dequantize.default: write_dequantize,
        names.deform_conv2d.default: write_deform_conv2d(op),
        names.select_detections.default: write_select_detections(op),
    }
