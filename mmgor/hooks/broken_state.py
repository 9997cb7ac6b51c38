"""Finds broken parameters and buffers, even while the loss stays finite.

Batch norm does not read its averages in training, and a step size far above
the values of its tensor rounds all of them to 0. Neither shows in the loss.
"""

import math

import torch
from torch import nn

from mmgor.io.checkpoint import LARGEST_STEP


@torch.no_grad()
def broken_tensors(model: nn.Module) -> list[str]:
    """Find tensors that are not finite, and absurd step sizes and ranges.

    The host waits for the device once.

    Args:
        model (nn.Module): Its parameters and buffers are checked.

    Returns:
        list[str]: For each broken tensor, its name and what is wrong with it.
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
    """Largest step or range in a quantizer's parameter or buffer.

    Args:
        name (str): Path of the tensor.
        tensor (Tensor): The parameter or buffer.
        size (float): Its largest magnitude.
    """
    if not name.endswith('log_scale'):
        return size
    if size <= math.log(LARGEST_STEP):
        return math.exp(size)
    # The largest magnitude may be a negative logarithm, that of a tiny step.
    return float(tensor.max().exp())


def check_state(model: nn.Module) -> None:
    """Stop the training if a tensor is broken.

    Args:
        model (nn.Module): Its parameters and buffers are checked.

    Raises:
        RuntimeError: If one is broken; the message names it.
    """
    lines = broken_tensors(model)
    if lines:
        raise RuntimeError(
            'expected a finite state with step sizes below '
            f'{LARGEST_STEP:g}, got {len(lines)} broken tensors: '
            f'{"; ".join(lines[:3])}. Training stops, because such a model '
            'detects nothing. Check load_from, or resume from an earlier '
            'checkpoint.'
        )
