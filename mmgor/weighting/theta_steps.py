"""Where the thetas move: one step of gradient descent per optimizer step.

``GoRWeightHook`` calls :func:`move_thetas` when training starts. From then on
:func:`theta_step` runs right before each step of the student's optimizer. It
is the only code that trains the thetas.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def default_theta_lr(weighting: Any, steps: float) -> float:
    """Step size of the thetas.

    Args:
        weighting (ThetaWeighting): Its ``theta_lr``, if set, is returned.
        steps (float): Optimizer steps of the whole training.

    Returns:
        float: The ``theta_lr``; else 60 / ``steps``, kept within
        [0.02, 0.3].

    Example:
        >>> from mmgor.weighting import GoRWeighting
        >>> default_theta_lr(GoRWeighting(), 600)
        0.1
    """
    return weighting.theta_lr or min(0.3, max(0.02, 60 / max(1, steps)))


def move_thetas(
    weighting: Any, optimizer: Any, rate: float
) -> list[RemovableHandle]:
    """Let the thetas move whenever the optimizer steps.

    The optimizer itself does not move them: their gradients are set to zero
    as soon as they are computed, so that clipping does not see them either.

    Args:
        weighting (ThetaWeighting): The balancer.
        optimizer (Optimizer): The student's.
        rate (float): Step size of the thetas.

    Returns:
        list[RemovableHandle]: ``remove()`` on each undoes the call.
    """
    clear = [
        theta.register_post_accumulate_grad_hook(clear_gradient)
        for theta in weighting.parameters()
    ]
    step = theta_step(weighting, rate)
    return [*clear, optimizer.register_step_pre_hook(step)]


def theta_step(weighting: Any, rate: float) -> Any:
    """The step itself, as a function that an optimizer calls before its own:
    theta -= rate * gradient.

    Args:
        weighting (ThetaWeighting): It knows the gradient.
        rate (float): Step size of the thetas.
    """

    @torch.compiler.disable
    @torch.no_grad()
    def step(*_: Any) -> None:
        gradient = weighting.take_gradient()
        if gradient is not None:
            weighting.theta_task.sub_(rate * gradient[0])
            weighting.theta_kd.sub_(rate * gradient[1])

    return step


def clear_gradient(theta: nn.Parameter) -> None:
    """Set a theta's gradient to zero."""
    assert theta.grad is not None
    theta.grad.zero_()
