"""Base class of the balancers that combine the two losses' gradients."""

from torch import Tensor

from .gradients import GradientStats
from .stateless_weighting import StatelessWeighting


class GradientWeighting(StatelessWeighting):
    """Weights that are a function of the two losses' gradients.

    The papers combine the gradients of the shared parameters, while each head
    gets the gradient of its own loss. Here the gradients are measured at the
    shared features, as MGDA-UB does (Sener & Koltun, NeurIPS 2018, section
    3.3): both reach the parameters through the same Jacobian. The weights
    multiply the losses, so they act in the head too: a weight of 100 makes the
    head's gradient 100 times as large.

    Cost: a step takes 1.08 to 1.09 times as long as one with fixed weights
    (the demo's student, docs/results/balancers.md). The extra time is spent on
    two more backward passes, from each loss through the head down to the
    features.
    DDP: norms and cosine are averaged over the ranks, so all ranks have the
    same weights; the measurement gives no parameter a gradient, so DDP sees
    nothing of it. AMP: losses are scaled up for the measurement; if a gradient
    overflows, it is measured again without scaling. The weights are float32.
    """

    def needs_gradients(self) -> bool:
        return self.training

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        assert gradients is not None
        return self.combine(gradients)

    def combine(self, gradients: GradientStats) -> Tensor:
        """Compute the weights; a subclass implements this.

        Args:
            gradients (GradientStats): Norms and cosine of the two gradients.

        Returns:
            Tensor: Shape (2, ).
        """
        raise NotImplementedError
