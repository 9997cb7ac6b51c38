"""GradNorm: gradients of one size, larger for the loss that lags."""

import torch
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.theta_weighting import ThetaWeighting


@MODELS.register_module()
class GradNormWeighting(ThetaWeighting):
    """Weighted gradient norms G_i pulled to mean(G) r_i^alpha.

    G_i = w_i n_i; r_i = (L_i / L_i(0)) over its mean. The weights descend
    ``sum_i |G_i - mean(G) r_i^alpha|``, the target held fixed, and sum to 2.
    w = 2 softmax(-theta): weights stay positive, and the gradient (in units
    of mean(G)) does not know the losses' units.

    Source: Chen et al., ICML 2018, eq. 1 and 2. Differences: the paper moves
    the weights themselves, and measures at the last shared layer's parameters.

    Losses of very different size: constant units cancel once it has arrived
    (log of the norms' ratio to go, two to four step sizes a step). Where both
    can be at their targets it never rests: the absolute value's slope does
    not vanish, so theta moves about the target by a step size. L(0) is one
    batch's; a loss that jumps up later counts as one that lags, and with
    alpha = 1.5 gets nearly all of the gradient. From weights near 0 the way
    back is slow: the softmax's slope has both weights as factors.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.

    Attributes:
        first (Tensor): L(0), shape (2, ); 0 until it is known.

    Args:
        alpha (float): How much more a lagging loss gets.

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
