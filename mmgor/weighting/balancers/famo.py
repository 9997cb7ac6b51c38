"""FAMO: both losses are to fall at the same relative rate."""

import torch
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class FAMOWeighting(ThetaWeighting):
    """w_i proportional to z_i / L_i, with z = softmax(xi) and xi = -theta.

    The weights sum to 2; the paper's sum to 1. xi moves against
    J^T d + gamma xi, where d is the decrease of the log losses in the last
    step and J the Jacobian of z, so the loss that fell less gains share.

    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS
    2023, algorithm 1. Differences: the paper's d compares the losses before
    and after the step, for which its released code runs the same batch a
    second time. Here the losses of the next step are used instead. That saves
    a forward pass, but d contains the difference between two batches as noise.
    As in the released code, xi is moved by Adam at a rate of 0.025; that rate
    does not depend on the length of the run, since xi has no resting point.

    Losses of very different size: the shares of the weighted losses are z,
    whatever the units, and a constant factor cancels in d. The weighted sum is
    the harmonic mean of L_i / z_i, so one small loss makes the whole gradient
    small. A loss that jumps up counts as one that did not fall: with Adam's
    momentum, xi moves by up to about 30 step sizes. After that it hardly moves
    for a thousand steps, because the spike stays in the second moment.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP and AMP: see
    :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`.

    Attributes:
        logs (Tensor): Last log losses that were finite, shape (2, ).
        moments (Tensor): Adam's first and second moment, shape (2, 2).
        count (Tensor): Number of calls with finite, positive losses, shape ().

    Args:
        gamma (float): Decay of xi.

    Raises:
        ValueError: If ``gamma`` is negative.
    """

    theta_lr = 0.025
    logs: Tensor
    moments: Tensor
    count: Tensor

    def __init__(self, gamma: float = 0.01) -> None:
        super().__init__()
        self.gamma = number('gamma', gamma, '[0, inf)')
        self.register_buffer('logs', torch.zeros(2))
        self.register_buffer('moments', torch.zeros(2, 2))
        self.register_buffer('count', torch.zeros((), dtype=torch.int64))

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, Tensor]:
        theta = self.theta().detach()
        usable = functional.usable(losses)
        logs = torch.where(usable, losses.log(), self.logs)
        direction = torch.zeros_like(theta)
        if self.training:
            # The first call has no losses to compare with.
            moved = usable & (self.count > 0)
            step, moments = functional.adam_step(
                functional.famo_gradient(theta, self.logs - logs, self.gamma),
                self.moments,
                self.count.clamp(min=1),
            )
            direction = torch.where(moved, step, 0.0)
            self.moments.copy_(torch.where(moved, moments, self.moments))
            self.logs.copy_(logs)
            self.count += usable
        return functional.famo_weights(theta, logs.exp()), self.theta_loss(
            direction
        )
