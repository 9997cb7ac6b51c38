"""How far each layer's weight is from its rounded value."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmgor.io.checkpoint import is_deployed
from mmgor.quantization import quantized_layers


@dataclass(frozen=True)
class WeightError:
    """Rounding of one layer's weight.

    Attributes:
        error (float): Norm of the rounding error divided by the norm of the
            weight.
        used (float): Largest integer in use divided by the largest one that
            the bits allow, 0 to 1; mean over the channels with a scale of
            their own.
        clipped (float): Share of the weights beyond the range, 0 to 1.
    """

    error: float
    used: float
    clipped: float


def weight_errors(model: nn.Module) -> dict[str, WeightError]:
    """The rounding of each quantized weight; layers without ranges are left
    out.

    Args:
        model (nn.Module): A trained student.

    Returns:
        dict[str, WeightError]: By the path of the layer.
    """
    return {
        name: _error(layer)
        for name, layer in quantized_layers(model).items()
        if is_deployed(name) and layer.weight_quantizer.calibrated
    }


@torch.no_grad()
def _error(layer: Any) -> WeightError:
    weight = layer.channels_first().float()
    rounded = layer.weight_quantizer(weight).float()
    integers, grid = layer.weight_integers()
    norm = weight.norm().item() or 1.0
    rows = integers.flatten(1) if grid.scale.dim() else integers.reshape(1, -1)
    used = rows.abs().amax(1).float().mean() / grid.qmax
    # Half a step beyond the last integer still rounds to it.
    scale = grid.scale.reshape(-1, *[1] * (weight.dim() - 1))
    steps = weight / scale
    outside = (steps > grid.qmax + 0.5) | (steps < grid.qmin - 0.5)
    return WeightError(
        (weight - rounded).norm().item() / norm,
        used.item(),
        outside.float().mean().item(),
    )
