"""``Bfloat16OptimWrapper``: training under autocast on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Forward passes under bfloat16 autocast, on a CPU or a GPU.

    mmengine's AmpOptimWrapper refuses CPUs, of which many have units for
    bfloat16. It has the range of float32, so losses need no scaling.

    Example:
        >>> optim_wrapper = dict(type='Bfloat16OptimWrapper')
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The block of a forward pass; see the base class."""
        device = next(model.parameters()).device.type
        with (
            super().optim_context(model),
            torch.autocast(device, torch.bfloat16),
        ):
            yield
