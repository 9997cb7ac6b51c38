"""Quantizers that are calibrated by hand."""

import torch


def ready(cls, bits=4, signed=False, scale=0.1, **kwargs):
    """A calibrated quantizer with the given step size."""
    quantizer = cls(bits, **kwargs)
    quantizer.choose_range(signed)
    scales = torch.full((quantizer.num_scales,), scale)
    high = scales * quantizer.qmax
    quantizer.set_ranges(
        scales, torch.zeros_like(scales), scales * quantizer.qmin, high
    )
    return quantizer.eval()
