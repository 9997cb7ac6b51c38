"""How GoRWeightHook moves a balancer's thetas."""

from typing import Any

import torch
from torch import nn


def default_theta_lr(weighting: Any, steps: float) -> float:
    """Step size of a balancer's thetas in a run of so many optimizer steps."""
    return weighting.theta_lr or min(0.3, max(0.02, 60 / max(1, steps)))


def take_no_part(theta: nn.Parameter) -> None:
    """Keep a theta's gradient out of the norm that clipping looks at."""
    assert theta.grad is not None
    theta.grad.zero_()


def theta_step(weighting: Any, rate: float) -> Any:
    """What happens to the thetas when the optimizer steps."""

    @torch.compiler.disable
    @torch.no_grad()
    def step(*_: Any) -> None:
        gradient = weighting.take_gradient()
        if gradient is not None:
            weighting.theta_task.sub_(rate * gradient[0])
            weighting.theta_kd.sub_(rate * gradient[1])

    return step


def move_thetas(weighting: Any, optimizer: Any, rate: float) -> None:
    """Let a balancer's thetas step whenever the optimizer does, and never by
    the optimizer itself.

    Args:
        weighting (nn.Module): The balancer.
        optimizer (Optimizer): Of the student.
        rate (float): Step size of the thetas.
    """
    for theta in weighting.parameters():
        theta.register_post_accumulate_grad_hook(take_no_part)
    optimizer.register_step_pre_hook(theta_step(weighting, rate))
