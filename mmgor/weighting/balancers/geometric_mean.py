"""Geometric loss strategy: descend the geometric mean of the losses."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.stateless_weighting import StatelessWeighting


@MODELS.register_module()
class GeometricMeanWeighting(StatelessWeighting):
    """The total is sqrt(L_T L_K), with its gradient.

    d sqrt(L_T L_K) = 0.5 sqrt(L_K / L_T) dL_T + 0.5 sqrt(L_T / L_K) dL_K: the
    weighted losses are half of the geometric mean each.

    Source: Chennupati et al., "MultiNet++", CVPR workshops 2019, arXiv
    1904.08492, section on the geometric loss strategy.

    Losses of very different size: the direction of the gradient does not know
    units; its size goes with the square root of each. So a vanishing loss
    slows the other down, and its own weight grows without bound.

    Cost: none that shows in a step (docs/results/balancers.md). DDP: weights
    from losses over all ranks, thus equal; the gradient is the geometric
    mean's of the mean losses, not a mean of the ranks' own. AMP: float32.
    """

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        return functional.geometric_mean_weights(losses)
