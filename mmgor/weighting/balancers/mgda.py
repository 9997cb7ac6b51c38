"""MGDA: the shortest vector in the convex hull of both gradients."""

from torch import Tensor

from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class MGDAWeighting(GradientWeighting):
    """2 (x, 1 - x), with the x in [0, 1] of the shortest x g_T + (1 - x) g_K.

    The paper's weights sum to 1. The gradients are not normalised, unlike in
    the paper's code.

    Source: Desideri, C. R. Acad. Sci. 2012; Sener & Koltun, "Multi-Task
    Learning as Multi-Objective Optimization", NeurIPS 2018, section 3.2 and
    algorithm 1 for two tasks, section 3.3 for the features (MGDA-UB).

    Losses of very different size: it overcorrects. At right angles w_i is
    proportional to 1 / n_i^2, so the loss with the larger gradient gets the
    smaller weighted gradient, by the same ratio. If c >= n_small / n_large,
    the smaller gradient itself is the shortest vector, and the other loss gets
    the weight 0.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.
    """

    def combine(self, gradients: GradientStats) -> Tensor:
        return functional.mgda_weights(gradients.norms, gradients.cosine)
