"""UW-SO, soft optimal uncertainty weighting: a softmax of inverse losses."""

from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.gradients import GradientStats
from mmgor.weighting.stateless_weighting import StatelessWeighting


@MODELS.register_module()
class UWSOWeighting(StatelessWeighting):
    """w = 2 softmax(1 / (L T)); the paper's weights sum to 1.

    Source: Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting
    in Multi-Task Learning", arXiv 2408.07985, section 3 (UW-SO).

    Losses of very different size: the result depends on their units. Two large
    losses have inverses near 0 and get equal weights, so the larger one
    dominates. If L T is far below 1, the softmax saturates and the smaller
    loss gets all the weight. The temperature has the unit 1 / loss and must be
    searched for with every pair of losses.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP: losses are averaged over the ranks. AMP:
    float32.

    Args:
        temperature (float): The paper's T.

    Raises:
        ValueError: If ``temperature`` is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = number('temperature', temperature, '(0, inf)')

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        return functional.inverse_loss_weights(losses, self.temperature)
