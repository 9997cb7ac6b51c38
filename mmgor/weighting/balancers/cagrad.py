"""CAGrad: the best of the worse improvement near the mean gradient."""

from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class CAGradWeighting(GradientWeighting):
    """Weights of 2 d, where d maximises min_i d . g_i in a ball.

    The ball is ``|d - g_0| <= c |g_0|`` around the mean gradient g_0.

    Twice the paper's direction, so that c = 0 gives
    (1, 1); its optional rescaling by 1 + c^2 is left out. The dual in one
    variable has a closed form (``functional.cagrad_weights``).

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task
    Learning", NeurIPS 2021, algorithm 1.

    Losses of very different size: the improvements d . g_i are compared in the
    losses' own units, so that the worse is the smaller gradient's, which gets
    all of the ball: its weighted norm is about c times the larger one's, a
    share of c / (1 + c) whatever the ratio is. The larger rules, within
    bounds; the smaller one's weight is c times the ratio, which is felt in the
    head.

    Cost, DDP, AMP: see
    :class:`~mmgor.weighting.gradient_weighting.GradientWeighting`.

    Args:
        radius (float): The paper's c.

    Raises:
        ValueError: If ``radius`` is not in [0, 1).
    """

    def __init__(self, radius: float = 0.5) -> None:
        super().__init__()
        self.radius = number('radius', radius, '[0, 1)')

    def combine(self, gradients: GradientStats) -> Tensor:
        return functional.cagrad_weights(
            gradients.norms, gradients.cosine, self.radius
        )
