"""``Bfloat16OptimWrapper``: training under autocast on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Forward passes under bfloat16 autocast, on a CPU or a GPU.

    mmengine's AmpOptimWrapper refuses CPUs, of which many have units for
    bfloat16. It has the range of float32, so losses need no scaling. On a CPU
    a convolution whose maps are narrower than its stride runs in float32.

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


def _keep_narrow_maps_in_float32(model: nn.Module) -> None:
    # oneDNN's bfloat16 kernel for the gradient of such a weight never writes
    # the kernel's columns that read only padding: they keep what the memory
    # held before, NaN among it (torch 2.13.0, AVX-512 with and without BF16;
    # kernels of 2 to 7, strides of 2 to 4, both memory formats).
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride[1] > 1:
            hooks = _Float32WhereNarrow()
            layer.register_forward_pre_hook(hooks.before)
            layer.register_forward_hook(hooks.after, always_call=True)


class _Float32WhereNarrow:
    """Switches autocast off for a convolution's pass over narrow maps."""

    def __init__(self) -> None:
        self.switched = False

    def before(self, layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> Any:
        narrow = inputs[0].shape[-1] < layer.stride[1]
        if not (narrow and torch.is_autocast_enabled('cpu')):
            return None
        torch.set_autocast_enabled('cpu', False)
        self.switched = True
        return (inputs[0].float(), *inputs[1:])

    def after(self, *_: Any) -> None:
        if self.switched:
            torch.set_autocast_enabled('cpu', True)
            self.switched = False
