"""Uncertainty weighting: a trainable noise level for each loss."""

import torch
from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class UncertaintyWeighting(ThetaWeighting):
    """Each loss is weighted by its homoscedastic uncertainty.

    Minimises sum_i L_i / (2 sigma_i^2) + log(sigma_i), over the sigmas too;
    theta_i = log(sigma_i) starts at 0. Both losses get the paper's form for
    regression.

    Source: Kendall, Gal & Cipolla, CVPR 2018, eq. 7.

    Losses of very different size: at rest w_i = 1 / (2 L_i), so the direction
    of the student's gradient does not depend on the units. Until then the
    larger loss dominates: theta_i starts at 0 and has 0.5 log(L_i) to go. The
    size of the student's gradient is inversely proportional to the losses, so
    it grows as they fall. A loss that vanishes because the student agrees with
    its teacher gets an ever larger weight.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP and AMP: see
    :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`.
    """

    highest_theta_lr = 1.0  # the slope of 1 - L exp(-2 theta) at rest is 2

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, Tensor]:
        theta = self.theta().detach()
        known = torch.where(functional.usable(losses), losses, torch.nan)
        own = self.theta_loss(functional.uncertainty_gradient(theta, known))
        return functional.precision_weights(theta), own + theta.sum()
