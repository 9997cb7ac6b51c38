"""CAGrad: helps the loss that improves least, near the mean gradient."""

from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradient_weighting import GradientWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class CAGradWeighting(GradientWeighting):
    """The weights of 2 d, where d maximises min_i d . g_i in a ball.

    The ball is ``|d - g_0| <= c |g_0|`` around the mean gradient g_0. The
    result is twice the paper's direction, so that c = 0 gives (1, 1); the
    paper's optional rescaling by 1 + c^2 is left out. The dual problem has one
    variable and a closed form (``functional.cagrad_weights``).

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task
    Learning", NeurIPS 2021, algorithm 1.

    Losses of very different size: the improvements d . g_i are compared in the
    losses' own units, so the loss with the smaller gradient improves less and
    gets the whole radius. Its weighted norm is about c times that of the other
    loss, a share of c / (1 + c) whatever the ratio of the norms is. The larger
    loss dominates, but not without bound. The weight of the smaller loss is
    about c times the ratio of the norms, which acts in the head too.

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
