"""The Game of Regularizer's equations as pure functions.

Let L_i be the task and the distillation loss (i = T, K), theta_i their
trainable scalars and w_i = exp(-theta_i). The game's potential is

    J = sum_i (w_i L_i + theta_i),   dJ/dtheta_i = 1 - w_i L_i,

so each player rests at w_i = 1 / L_i, and none gains by driving a weight to
zero or to infinity. All tensors have shape (2, ): task first.
"""

import torch
from torch import Tensor


def weights_of(theta: Tensor) -> Tensor:
    """w = exp(-theta)."""
    return torch.exp(-theta)


def zero_sum_weights(theta: Tensor) -> Tensor:
    """u_i = 2 w_i / (w_T + w_K): in (0, 2), summing to 2."""
    return 2 * torch.softmax(-theta, 0)


def theta_gradient(theta: Tensor, strength: Tensor) -> Tensor:
    """dJ/dtheta = 1 - w * strength, bounded to [-1, 1].

    The bound only acts where a strength is more than twice its reference
    exp(theta): a spike of one batch then moves theta no further than a
    vanishing loss does. A non-finite strength gives 0: theta stays.

    Args:
        theta (Tensor): Shape (2, ).
        strength (Tensor): What the game is over: the losses, or the norms of
            their gradients. Shape (2, ), not negative.
    """
    gradient = (1 - weights_of(theta) * strength).clamp(min=-1)
    return torch.where(torch.isfinite(gradient), gradient, 0.0)


def attach_gradient(theta: Tensor, gradient: Tensor) -> Tensor:
    """A scalar of value 0 whose gradient to ``theta`` is ``gradient``."""
    term = (theta * gradient.detach()).sum()
    return term - term.detach()


def running_mean(
    mean: Tensor, value: Tensor, count: Tensor, momentum: float
) -> Tensor:
    """Exponential mean that starts as a plain one; skips non-finite values.

    Args:
        mean (Tensor): Mean so far, shape (2, ).
        value (Tensor): New values, shape (2, ).
        count (Tensor): Values seen before these, shape (2, ).
        momentum (float): Least share of the new value.
    """
    share = torch.clamp(1.0 / (count + 1), min=momentum)
    return torch.where(
        torch.isfinite(value), mean + share * (value - mean), mean
    )


def distance(theta: Tensor, reference: Tensor) -> Tensor:
    """How far theta is from its resting point log(reference), in nats."""
    return theta - torch.log(reference)
