"""The integer grid of a quantizer, from which files for devices are made."""

from dataclasses import dataclass

import torch
from torch import Tensor


def along(values: Tensor, dims: int, axis: int = 1) -> Tensor:
    """Reshape (C, ) to ``dims`` axes with C on ``axis``; leave () as it is."""
    if values.dim() == 0:
        return values
    shape = [1] * dims
    shape[axis] = -1
    return values.view(shape)


@dataclass(frozen=True)
class Grid:
    """The values ``scale * (q - zero_point)`` for ``qmin <= q <= qmax``.

    Args:
        scale (Tensor): Step size in units of the tensor, shape () or (C, ).
        zero_point (Tensor): Integer that stands for the value 0, int32,
            shape of ``scale``. It may lie outside of ``[qmin, qmax]``.
        qmin (int): Smallest integer.
        qmax (int): Largest integer.
        axis (int): Axis of the tensor that has the C channels.
    """

    scale: Tensor
    zero_point: Tensor
    qmin: int
    qmax: int
    axis: int = 0

    def quantize(self, x: Tensor) -> Tensor:
        """The nearest integers (half to even), int32, shape of ``x``."""
        scale, zero_point = self._shaped(x)
        # The operations have the order of fake_quantize, so that both round
        # alike.
        levels = (x.float() / scale + zero_point).clamp(self.qmin, self.qmax)
        return levels.round().to(torch.int32)

    def dequantize(self, integers: Tensor) -> Tensor:
        """The values that ``integers`` stand for, float32."""
        scale, zero_point = self._shaped(integers)
        return (integers - zero_point) * scale

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dims = x.dim()
        return (
            along(self.scale, dims, self.axis),
            along(self.zero_point, dims, self.axis),
        )
