"""PCGrad: each gradient without its part against the other."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class PCGradWeighting(GradientWeighting):
    """The sum of both gradients, each projected where they conflict.

    For a cosine c < 0, g_T loses its part along g_K and g_K its part along
    g_T: w_T = 1 - c n_K / n_T, w_K = 1 - c n_T / n_K. Else (1, 1). The
    paper's random order is one of more than one other task; with two losses
    there is none.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS
    2020, algorithm 1.

    Losses of very different size: no balancer of sizes. Each gradient keeps
    sqrt(1 - c^2) of its length or all of it, so that the larger rules by the
    ratio it had. In a conflict the smaller one's weight is about the ratio of
    the norms, which is felt in the head.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.
    """

    def combine(self, gradients: GradientStats) -> Tensor:
        return functional.pcgrad_weights(gradients.norms, gradients.cosine)
