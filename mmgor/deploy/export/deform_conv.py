"""Deformable convolutions as one node of a graph.

mmcv's compiled code can't be traced. While a network is traced, a custom torch
operator stands in for it. ONNX calls the operator ``DeformConv`` (since opset
19), OpenVINO ``DeformableConvolution``. OpenVINO's reader of ONNX files does
not know ``DeformConv``, so it is told.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, SAConv2d
from mmcv.ops.deform_conv import DeformConv2dFunction
from mmcv.ops.merge_cells import BaseMergeCell
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dFunction
from torch import Tensor
from torch.nn.modules.utils import _pair

from mmgor.deploy.optional_imports import require

#: Modules of ``mmcv.ops`` whose only compiled code, if any, is that of
#: deformable convolutions.
WRITTEN_MODULES = (
    DeformConv2d,
    ModulatedDeformConv2d,
    SAConv2d,
    BaseMergeCell,
)
#: The compiled functions behind them.
WRITTEN_FUNCTIONS = ('deform_conv_forward', 'modulated_deform_conv_forward')


class _Compiled(ModulatedDeformConv2dFunction):
    """mmcv's function, also while its base class is replaced."""

    forward = staticmethod(ModulatedDeformConv2dFunction.forward)


@torch.library.custom_op('mmgor::deform_conv2d', mutates_args=())
def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Deformable convolution (arXiv:1703.06211, with a mask arXiv:1811.11168).

    Args:
        x (Tensor): Shape (N, C, H, W).
        offset (Tensor): Vertical and horizontal offset of each sampled
            position in pixels, in turn, shape (N, deform_groups * kernel
            height * kernel width * 2, output height, output width).
        mask (Tensor, optional): Factor of each sampled value, shape (N,
            deform_groups * kernel height * kernel width, output height,
            output width). By default 1.
        weight (Tensor): Shape (output channels, C / groups, kernel height,
            kernel width).
        bias (Tensor, optional): Shape (output channels, ).
        stride (list[int]): Vertical and horizontal.
        padding (list[int]): Vertical and horizontal.
        dilation (list[int]): Vertical and horizontal.
        groups (int): Groups of channels with weights of their own.
        deform_groups (int): Groups of channels with offsets of their own.

    Returns:
        Tensor: Shape (N, output channels, output height, output width).
    """
    if mask is None:
        mask = torch.ones_like(offset[:, ::2])
    geometry = stride, padding, dilation, groups, deform_groups
    return _Compiled.apply(x, offset, mask, weight, bias, *geometry)


@deform_conv2d.register_fake
def _(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


def write_deform_conv2d(op: Any) -> Callable:
    """The ONNX translation of :func:`deform_conv2d`.

    Args:
        op (Any): The onnxscript opset, which writes the nodes.

    Returns:
        Callable: Writes the operator for the arguments given to it.
    """

    def write(
        x: Any,
        offset: Any,
        mask: Any,
        weight: Any,
        bias: Any,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
        deform_groups: int,
    ) -> Any:
        return op.DeformConv(
            x,
            weight,
            offset,
            bias,
            mask,
            strides=stride,
            pads=[*padding, *padding],
            dilations=dilation,
            group=groups,
            offset_group=deform_groups,
        )

    return write


def openvino_extension() -> Any:
    """Tells OpenVINO's reader of ONNX files what ``DeformConv`` is.

    Returns:
        openvino.frontend.onnx.ConversionExtension: For ``convert_model``.
    """
    ops = require('openvino.opset8')

    def convert(node: Any) -> list:
        inputs = [node.get_input(i) for i in range(node.get_input_size())]
        x, weight, offset, bias, mask = [*inputs, None, None][:5]
        pads = node.get_attribute('pads')
        out = ops.deformable_convolution(
            x,
            offset,
            weight,
            node.get_attribute('strides'),
            pads[:2],
            pads[2:],
            node.get_attribute('dilations'),
            mask=mask,
            group=node.get_attribute('group'),
            deformable_group=node.get_attribute('offset_group'),
            # Positions less than a pixel outside mix the border with zeros.
            bilinear_interpolation_pad=True,
        )
        # A bias that is left out before a mask is a node, too.
        if bias is not None and bias.get_node().get_type_name() != 'NullNode':
            out = ops.add(out, ops.unsqueeze(bias, [0, 2, 3]))
        return out.outputs()

    frontend = require('openvino.frontend.onnx')
    return frontend.ConversionExtension('DeformConv', convert)


@contextmanager
def traceable_deform_convs() -> Iterator[None]:
    """In the block, mmcv's deformable convolutions are :func:`deform_conv2d`.

    Heads hold mmcv's functions, so it is these that are replaced.
    """
    replaced = (
        (DeformConv2d, _layer),
        (DeformConv2dFunction, staticmethod(_plain)),
        (ModulatedDeformConv2dFunction, staticmethod(_modulated)),
    )
    before = [vars(kind)['forward'] for kind, _ in replaced]
    for kind, forward in replaced:
        kind.forward = forward
    try:
        yield
    finally:
        for (kind, _), forward in zip(replaced, before):
            kind.forward = forward


def _layer(self: Any, x: Tensor, offset: Tensor) -> Tensor:
    """The layer's forward pass, without its padding of small inputs. It is
    for the compiled code alone, and a trace would make it a constant."""
    geometry = self.stride, self.padding, self.dilation
    groups = self.groups, self.deform_groups
    return _plain(None, x, offset, self.weight, *geometry, *groups)


def _plain(
    ctx: Any,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deform_groups: int = 1,
    bias: bool = False,
    im2col_step: int = 32,
) -> Tensor:
    geometry = stride, padding, dilation, groups, deform_groups
    return _modulated(ctx, x, offset, None, weight, None, *geometry)


def _modulated(
    ctx: Any,
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    stride, padding, dilation = map(_pair, (stride, padding, dilation))
    sides = [
        (side + 2 * pad - reach * (kernel - 1) - 1) // step + 1
        for side, kernel, step, pad, reach in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation
        )
    ]
    if list(offset.shape[2:]) != sides:
        offset = _first_values(offset, sides)
        mask = None if mask is None else _first_values(mask, sides)
    return deform_conv2d(
        x,
        offset,
        mask,
        weight,
        bias,
        list(stride),
        list(padding),
        list(dilation),
        groups,
        deform_groups,
    )


def _first_values(maps: Tensor, sides: list[int]) -> Tensor:
    """Maps of other sides from the first values of each image, in the order
    of memory. That is what mmcv reads of maps that are too large, as in
    mmdet's DyHead."""
    channels = maps.shape[1]
    count = channels * sides[0] * sides[1]
    return maps.flatten(1)[:, :count].unflatten(1, (channels, *sides))
