"""MGDA: the shortest gradient in the convex hull of both."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class MGDAWeighting(GradientWeighting):
    """2 (x, 1 - x) with the shortest x g_T + (1 - x) g_K, x in [0, 1].

    The paper's weights sum to 1. Gradients are taken as they are, without the
    normalisations of its code.

    Source: Desideri, C. R. Acad. Sci. 2012; Sener & Koltun, "Multi-Task
    Learning as Multi-Objective Optimization", NeurIPS 2018, section 3.2 and
    algorithm 1 for two tasks, section 3.3 for the features (MGDA-UB).

    Losses of very different size: overcorrects. At right angles
    w_i ~ 1 / n_i^2, so that the weighted gradient of the larger loss is the
    smaller one, by the same ratio. If c >= n_small / n_large the smaller
    gradient is the shortest, and the larger loss gets the weight 0.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.
    """

    def combine(self, gradients: GradientStats) -> Tensor:
        return functional.mgda_weights(gradients.norms, gradients.cosine)
