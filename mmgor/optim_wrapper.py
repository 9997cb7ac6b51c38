"""``Bfloat16OptimWrapper``: training under autocast on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper
from types import MethodType
from typing import Any
from weakref import WeakSet

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Forward passes under bfloat16 autocast, on a CPU or a GPU.

    mmengine's AmpOptimWrapper refuses CPUs, of which many have units for
    bfloat16. It has the range of float32, so losses need no scaling. On a CPU
    a convolution runs in float32 where its maps are narrower than its stride.

    Example:
        >>> optim_wrapper = dict(type='Bfloat16OptimWrapper')
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watched: WeakSet[nn.Module] = WeakSet()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The block of a forward pass; see the base class."""
        device = next(model.parameters()).device.type
        if device == 'cpu' and model not in self._watched:
            self._watched.add(model)
            _keep_narrow_maps_in_float32(model)
        with (
            super().optim_context(model),
            torch.autocast(device, torch.bfloat16),
        ):
            yield


@torch.compiler.disable
def _keep_narrow_maps_in_float32(model: nn.Module) -> None:
    # oneDNN's bfloat16 kernel for the gradient of such a weight never writes
    # the kernel's columns that read only padding: they keep what the memory
    # held before, NaN among it (torch 2.13.0, AVX-512 with and without BF16;
    # kernels of 2 to 7, strides of 2 to 4, both memory formats).
    for layer in model.modules():
        strided = isinstance(layer, _ConvNd) and layer.stride[-1] > 1
        if strided and 'forward' not in vars(layer):
            owner: Any = layer
            stock = MethodType(type(owner).forward, owner)
            # A copy of the layer gets a function of its own.
            owner.forward = update_wrapper(partial(_forward, owner), stock)


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    stock = type(layer).forward
    if not _is_narrow(layer, x):
        return stock(layer, x, *args, **kwargs)
    with torch.autocast('cpu', enabled=False):
        return stock(layer, x.float(), *args, **kwargs)


def _is_narrow(layer: Any, x: Tensor) -> bool:
    """Whether the wider map of a strided layer has fewer columns than the
    stride: its input, or the output of a transposed convolution."""
    width, stride = x.shape[-1], layer.stride[-1]
    if layer.transposed:
        reach = layer.dilation[-1] * (layer.kernel_size[-1] - 1)
        border = layer.output_padding[-1] - 2 * layer.padding[-1]
        width = (width - 1) * stride + reach + border + 1
    return width < stride
