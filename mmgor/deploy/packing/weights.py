"""Float weights that quantize to given integers, bit for bit.

A quantizer whose step is stored (LSQ) gives ``integer * step`` back as it is.
Others find the step in the weight itself, from its largest magnitude, the
peak: for these the peak is stored, and it must come back exactly.
"""

from typing import Any

import torch
from torch import Tensor

from mmgor.quantization import DoReFaQuantizer, LSQQuantizer, MinMaxQuantizer
from mmgor.quantization.quantizers.functional import MIN_SCALE, weight_peak


def has_stored_step(quantizer: Any) -> bool:
    """Whether the state dict holds the weight's step (``log_scale``).

    Raises:
        ValueError: If weights of this quantizer cannot be restored.
    """
    kind = type(quantizer)
    if kind not in (LSQQuantizer, MinMaxQuantizer, DoReFaQuantizer):
        raise ValueError(
            f'weights of a {kind.__module__}.{kind.__name__} cannot be '
            'packed; expected weight_quantizer=dict(type=...) with '
            "'LSQQuantizer', 'MinMaxQuantizer' or 'DoReFaQuantizer'."
        )
    return kind is LSQQuantizer


def restore_weight(
    kind: str, integers: Tensor, scale: Tensor, qmax: int
) -> Tensor:
    """A weight that the quantizer takes to ``integers``, float32.

    Computed in float64, so that ``peak / qmax * qmax`` rounds to the peak.

    Args:
        kind (str): Class of the quantizer.
        integers (Tensor): int32, output channels first, C of them.
        scale (Tensor): Logarithm of the step (LSQQuantizer) or peak of the
            weight (others), float32, shape (C, ) or (1, ).
        qmax (int): Largest integer.
    """
    per_channel = len(scale) > 1
    rows = scale.double().view(-1, *[1] * (integers.dim() - 1))
    if kind == 'LSQQuantizer':
        return (integers * rows.exp().clamp(min=MIN_SCALE)).float()
    if kind == 'MinMaxQuantizer':
        return (integers * (rows / qmax).clamp(min=MIN_SCALE)).float()
    # DoReFa: integers / qmax is tanh(weight) / tanh(peak). Where tanh
    # saturates, atanh would miss the peak.
    squashed = integers / qmax * rows.tanh().clamp(min=MIN_SCALE)
    at_peak = integers.abs() == weight_peak(integers, per_channel)
    peaks = integers.sign() * rows
    return torch.where(at_peak, peaks, squashed.atanh()).float()
