"""GradNorm: gradients of equal size, larger for the loss that lags behind."""

import torch
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class GradNormWeighting(ThetaWeighting):
    """Moves the weighted gradient norms G_i towards mean(G) r_i^alpha.

    G_i = w_i n_i, and r_i is L_i / L_i(0) divided by its mean over i. The
    thetas minimise ``sum_i |G_i - mean(G) r_i^alpha|`` with the target as a
    constant. w = 2 softmax(-theta), so the weights stay positive and sum to 2.
    The thetas' gradient is divided by mean(G), so it does not depend on the
    losses' units.

    Source: Chen et al., ICML 2018, eq. 1 and 2. Differences: the paper moves
    the weights themselves and measures at the parameters of the last shared
    layer.

    Losses of very different size: constant units cancel once the thetas have
    arrived. They have the logarithm of the norms' ratio to go, at two to four
    step sizes per step. Where both norms can reach their targets the thetas
    never come to rest: the slope of the absolute value does not vanish, so
    they move around the target by a step size. L(0) is the loss of a single
    batch. A loss that jumps up later counts as one that lags behind, and with
    alpha = 1.5 gets nearly all of the gradient. From weights near 0 the way
    back is slow: both weights are factors in the slope of the softmax.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.

    Attributes:
        first (Tensor): L(0), shape (2, ); 0 until it is known.

    Args:
        alpha (float): How strongly a loss that lags behind is favoured.

    Raises:
        ValueError: If ``alpha`` is negative.
    """

    first: Tensor

    def __init__(self, alpha: float = 1.5) -> None:
        super().__init__()
        self.alpha = number('alpha', alpha, '[0, inf)')
        self.register_buffer('first', torch.zeros(2))

    def needs_gradients(self) -> bool:
        return self.training

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, Tensor]:
        theta = self.theta().detach()
        weights = functional.zero_sum_weights(theta)
        direction = torch.zeros_like(theta)
        if gradients is not None:
            usable = functional.usable(torch.cat([losses, gradients.norms]))
            known = self.first > 0
            self.first.copy_(torch.where(usable & ~known, losses, self.first))
            found = functional.gradnorm_gradient(
                weights, gradients.norms, losses, self.first, self.alpha
            )
            direction = torch.where(usable, found, 0.0)
        return weights, self.theta_loss(direction)
