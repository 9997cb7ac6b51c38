"""IMTL-G: a direction with equal projections on both unit gradients."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class IMTLGWeighting(GradientWeighting):
    """w_i proportional to 1 / n_i, summing to 2.

    Both weighted gradients then have the same norm. The paper asks for weights
    that sum to 1 and for a direction with the same projection on every unit
    gradient; for two losses that means w_T n_T = w_K n_K, at any angle.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
    section on gradient balance (IMTL-G; the loss balance IMTL-L is not used).

    Losses of very different size: the direction does not depend on the units.
    The size follows the smaller gradient, because the sum of the weights is
    fixed: each weighted norm is at most twice the smaller norm. A loss that
    has converged (norm near 0) takes all the weight and stops the other one.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.
    """

    def combine(self, gradients: GradientStats) -> Tensor:
        return functional.imtl_g_weights(gradients.norms)
