"""Finds the parameter or buffer that is broken, whatever the loss says.

In training batch norm does not read its averages, and a step size far above
its tensor rounds everything to 0: the loss stays finite.
"""

import math

import torch
from torch import nn

from mmgor.io.checkpoint import LARGEST_STEP


@torch.no_grad()
def broken_tensors(model: nn.Module) -> list[str]:
    """What is not finite, and step sizes and ranges that are out of all
    bounds.

    Args:
        model (nn.Module): Its parameters and buffers are read; the host
            waits once.

    Returns:
        list[str]: A line each: name and what is wrong.
    """
    named = {
        name: tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and tensor.numel()
    }
    if not named:
        return []
    norms = torch._foreach_norm(list(named.values()), math.inf)
    sizes = torch.stack([norm.float() for norm in norms]).tolist()
    lines = []
    for (name, tensor), size in zip(named.items(), sizes):
        if not math.isfinite(size):
            lines.append(f'{name} is not finite')
        elif '_quantizer.' in name:
            step = _largest_step(name, tensor, size)
            if step > LARGEST_STEP:
                lines.append(f'{name} has a step or range of {step:.3g}')
    return lines


def _largest_step(name: str, tensor: torch.Tensor, size: float) -> float:
    """Of a quantizer's parameter or buffer with this largest magnitude."""
    if not name.endswith('log_scale'):
        return size
    if size <= math.log(LARGEST_STEP):
        return math.exp(size)
    return float(tensor.max().exp())  # the large one may be a small step


def check_state(model: nn.Module) -> None:
    """Stop a training that goes on with a broken tensor.

    Raises:
        RuntimeError: Naming it.
    """
    lines = broken_tensors(model)
    if lines:
        raise RuntimeError(
            'expected a finite state with step sizes below '
            f'{LARGEST_STEP:g}, got {len(lines)} broken tensors: '
            f'{"; ".join(lines[:3])}. Training stops: a model with it '
            'detects nothing. Check load_from, or resume from an earlier '
            'checkpoint.'
        )
