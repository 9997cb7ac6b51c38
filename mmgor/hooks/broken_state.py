"""Finds broken parameters, buffers and states of the optimizer, even while the
loss stays finite.

Batch norm does not read its averages in training, a step size far above the
values of its tensor rounds all of them to 0, and Adam never moves a weight
again whose mean of squares is infinite, as after a gradient of 1e20. None of
that shows in the loss.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmgor.io.checkpoint import LARGEST_STEP


@torch.no_grad()
def broken_tensors(
    model: nn.Module, optimizer: Optimizer | None = None
) -> list[str]:
    """Find tensors that are not finite, and absurd step sizes and ranges.

    The host waits for the device once.

    Args:
        model (nn.Module): Its parameters and buffers are checked.
        optimizer (Optimizer, optional): Its states are checked, too.

    Returns:
        list[str]: For each broken tensor, its name and what is wrong with it.
    """
    named = {
        name: tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and tensor.numel()
    }
    states = {} if optimizer is None else _states(model, optimizer)
    tensors = [*named.items(), *states.items()]
    if not tensors:
        return []
    norms = torch._foreach_norm([tensor for _, tensor in tensors], math.inf)
    sizes = torch.stack([norm.float() for norm in norms]).tolist()
    lines = []
    for (name, tensor), size in zip(tensors, sizes):
        if not math.isfinite(size):
            lines.append(f'{name} is not finite')
        elif '_quantizer.' in name and name in named:
            step = _largest_step(name, tensor, size)
            if step > LARGEST_STEP:
                lines.append(f'{name} has a step or range of {step:.3g}')
    return lines


def broken_teachers(model: nn.Module) -> list[str]:
    """The broken tensors of a student's teachers.

    They are not part of its module tree.

    Args:
        model (nn.Module): The student, or any other detector.
    """
    return [
        f'teachers.{name}: {line}'
        for name, teacher in getattr(model, 'teachers', {}).items()
        if teacher.is_built
        for line in broken_tensors(teacher.model)
    ]


def _states(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """States of an optimizer on the device of their parameter. Adam counts its
    steps on the CPU."""
    names: dict[Any, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"the optimizer's {key} of {names.get(parameter, 'a parameter')}": x
        for parameter, state in optimizer.state.items()
        for key, x in state.items()
        if isinstance(x, Tensor)
        and x.device == parameter.device
        and x.is_floating_point()
        and x.numel()
    }


def _largest_step(name: str, tensor: Tensor, size: float) -> float:
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


def check_state(model: nn.Module, optimizer: Optimizer | None = None) -> None:
    """Stop the training if a tensor is broken.

    Args:
        model (nn.Module): Its parameters and buffers are checked.
        optimizer (Optimizer, optional): Its states are checked, too.

    Raises:
        RuntimeError: If one is broken; the message names it.
    """
    lines = broken_tensors(model, optimizer)
    if lines:
        raise RuntimeError(
            'expected a finite state with step sizes below '
            f'{LARGEST_STEP:g}, got {len(lines)} broken tensors: '
            f'{"; ".join(lines[:3])}. Training stops, because such a model '
            'detects nothing. Check load_from, or resume from an earlier '
            'checkpoint.'
        )
