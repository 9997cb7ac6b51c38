"""Uncertainty weighting whose regulariser cannot become negative."""

import torch
from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class RevisedUncertaintyWeighting(ThetaWeighting):
    """Uncertainty weighting with log(1 + sigma^2) for log(sigma).

    sum_i L_i / (2 sigma_i^2) + log(1 + sigma_i^2), minimised over the sigmas
    too; theta_i = log(sigma_i) starts at 0. It moves along the gradient over
    the regulariser's part of it, which has the same sign and zero
    (``functional.revised_uncertainty_gradient``).

    Source: Liebel & Koerner, arXiv 1805.06334, section 3.

    Losses of very different size: not invariant to units. At rest
    sigma^2 = (L + sqrt(L^2 + 8 L)) / 4: w_i is 1 / L_i for a large loss but
    only 1 / sqrt(2 L_i) for a small one, of which a share that falls with
    sqrt(L_i) remains.

    Cost: none that shows in a step (docs/results/balancers.md). DDP and AMP:
    see :class:`~mmgor.weighting.theta_weighting.ThetaWeighting`.
    """

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
