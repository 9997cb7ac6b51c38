"""Uncertainty weighting with a regulariser that is never negative."""

import torch
from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class RevisedUncertaintyWeighting(ThetaWeighting):
    """Uncertainty weighting with log(1 + sigma^2) in place of log(sigma).

    Minimises sum_i L_i / (2 sigma_i^2) + log(1 + sigma_i^2), over the sigmas
    too; theta_i = log(sigma_i) starts at 0. It moves along the gradient
    divided by the regulariser's part of it, which has the same sign and zero
    (``functional.revised_uncertainty_gradient``).

    Source: Liebel & Koerner, arXiv 1805.06334, section 3.

    Losses of very different size: the result depends on their units. At rest
    sigma^2 = (L + sqrt(L^2 + 8 L)) / 4. A large loss gets the weight 1 / L_i,
    but a small one only 1 / sqrt(2 L_i), so its weighted loss still falls with
    sqrt(L_i).

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP and AMP: see
    :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`.
    """

    # The slope at rest is (4 + 2 s) / (1 + s), with s = sigma^2: at most 4.
    highest_theta_lr = 0.5

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, Tensor]:
        theta = self.theta().detach()
        known = torch.where(functional.usable(losses), losses, torch.nan)
        own = self.theta_loss(
            functional.revised_uncertainty_gradient(theta, known)
        )
        value = torch.log1p(torch.exp(2 * theta)).sum()
        return functional.precision_weights(theta), own + value
