"""Restore float weights that quantize to given integers exactly.

LSQ stores its step size, and rounds ``integer * step`` to the same integer.
Other quantizers compute the step size from the largest magnitude of the
weight, the peak. For these the peak is stored, and the restored weight must
have exactly this peak.
"""

from typing import Any

import torch
from torch import Tensor

from mmgor.quantization import DoReFaQuantizer, LSQQuantizer, MinMaxQuantizer
from mmgor.quantization.quantizers.functional import MIN_SCALE, weight_peak


def has_stored_step(quantizer: Any) -> bool:
    """Whether the state dict has the step size of the weight (``log_scale``).

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
    """A float32 weight that the quantizer rounds to ``integers``.

    It is computed in float64, so that ``peak / qmax * qmax`` rounds to the
    peak.

    Args:
        kind (str): Class name of the quantizer.
        integers (Tensor): int32, with C output channels first.
        scale (Tensor): Logarithm of the step size (LSQQuantizer) or peak of
            the weight (others), float32, shape (C, ) or (1, ).
        qmax (int): Largest integer.

    Returns:
        Tensor: Shape of ``integers``.
    """
    per_channel = len(scale) > 1
    rows = scale.double().view(-1, *[1] * (integers.dim() - 1))
    if kind == 'LSQQuantizer':
        return (integers * rows.exp().clamp(min=MIN_SCALE)).float()
    if kind == 'MinMaxQuantizer':
        return (integers * (rows / qmax).clamp(min=MIN_SCALE)).float()
    # DoReFa: integers / qmax = tanh(weight) / tanh(peak). For a large peak
    # tanh saturates and atanh would not give the peak back.
    squashed = integers / qmax * rows.tanh().clamp(min=MIN_SCALE)
    at_peak = integers.abs() == weight_peak(integers, per_channel)
    peaks = integers.sign() * rows
    return torch.where(at_peak, peaks, squashed.atanh()).float()
