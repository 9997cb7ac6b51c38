"""PCGrad: removes from each gradient what conflicts with the other."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class PCGradWeighting(GradientWeighting):
    """The sum of both gradients, each projected if they conflict.

    If the cosine c is negative, g_T loses its component along g_K, and g_K its
    component along g_T: w_T = 1 - c n_K / n_T, w_K = 1 - c n_T / n_K.
    Otherwise the weights are (1, 1). The paper visits the other tasks in
    random order; with two losses there is only one other.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS
    2020, algorithm 1.

    Losses of very different size: it does not balance them. Each gradient
    keeps its length or sqrt(1 - c^2) of it, so the larger one dominates by the
    same ratio as before. In a conflict the weight of the loss with the smaller
    gradient is about the ratio of the norms, which acts in the head too.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.
    """

    def combine(self, gradients: GradientStats) -> Tensor:
        return functional.pcgrad_weights(gradients.norms, gradients.cosine)
