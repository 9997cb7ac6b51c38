"""Geometric loss strategy: minimise the geometric mean of the losses."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.stateless_weighting import StatelessWeighting


@MODELS.register_module()
class GeometricMeanWeighting(StatelessWeighting):
    """The weighted sum is sqrt(L_T L_K) and has its gradient.

    d sqrt(L_T L_K) = 0.5 sqrt(L_K / L_T) dL_T + 0.5 sqrt(L_T / L_K) dL_K, so
    each weighted loss is half of the geometric mean.

    Source: Chennupati et al., "MultiNet++", CVPR workshops 2019, arXiv
    1904.08492, section on the geometric loss strategy.

    Losses of very different size: the direction of the gradient does not
    depend on the units; its size is proportional to the square root of each
    loss. A loss that vanishes therefore slows the other one down, and its own
    weight grows without bound.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP: the weights come from losses averaged
    over the ranks, so they are the same on each. The gradient is that of the
    geometric mean of the averaged losses, not the average of the ranks'
    geometric means. AMP: float32.
    """

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        return functional.geometric_mean_weights(losses)
