"""What balancers that combine two gradients have in common."""

from torch import Tensor

from .gradients import GradientStats
from .stateless_weighting import StatelessWeighting


class GradientWeighting(StatelessWeighting):
    """Gradient surgery: the direction as a combination of two gradients.

    The papers combine gradients of the shared parameters and give each head
    its own loss's gradient. Here they are measured at the shared features (as
    MGDA-UB does, Sener & Koltun, NeurIPS 2018, section 3.3: the gradient at
    the parameters is theirs through one and the same Jacobian), and the
    weights multiply the losses, thus also in the head: a weight of 100 is a
    hundredfold gradient there.

    Cost: 1.08 to 1.09 of a step with fixed weights on the demo's student
    (docs/results/balancers.md): two more backward passes, from each loss down
    to the features (through the head). DDP: norms and cosine are means over
    the ranks' own, so that the weights are equal on all; no parameter gets a
    gradient from the measurement, and DDP notices nothing. AMP: losses are
    scaled for the measurement, and measured once more as they are where that
    overflows; weights are float32.
    """

    def needs_gradients(self) -> bool:
        return self.training

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        assert gradients is not None
        return self.combine(gradients)

    def combine(self, gradients: GradientStats) -> Tensor:
        """The two gradients' coefficients, shape (2, )."""
        raise NotImplementedError
