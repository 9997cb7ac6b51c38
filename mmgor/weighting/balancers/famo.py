"""Fast adaptive multitask optimisation: equal relative descent."""

import torch
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class FAMOWeighting(ThetaWeighting):
    """w_i ~ z_i / L_i, z = softmax(xi), summing to 2; the paper's sum to 1.

    xi moves against J^T d + gamma xi, where d is the last step's decrease of
    the log losses and J the Jacobian of z: the loss that fell less gains
    share. theta = -xi.

    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS
    2023, algorithm 1. Differences: the paper's d compares the losses before
    and after the step, for which its released code runs the same batch a
    second time. Here the next step's losses stand in: no second forward, but
    the difference of two batches is in d as noise. As in that code Adam's
    normalisation gives the step of xi, with a rate of 0.025: there is no
    resting point at which it had to arrive.

    Losses of very different size: the weighted losses' shares are z, whatever
    the units, and a constant factor cancels in d. Their sum is the harmonic
    mean of L_i / z_i: a small loss makes the whole gradient small. A loss that
    jumps up is one that did not fall: through Adam's momentum xi moves by up
    to about 30 step sizes, then hardly for a thousand steps, since the spike
    stays in the second moment.

    Cost: none that shows in a step (docs/results/balancers.md). DDP and AMP:
    see :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`.

    Attributes:
        logs (Tensor): Last usable log losses, shape (2, ).
        moments (Tensor): Adam's first and second, shape (2, 2).
        count (Tensor): Usable calls, shape ().

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
            # The first call has nothing to be compared with.
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
