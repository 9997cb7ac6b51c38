"""Base class of the balancers whose weights depend on this step alone."""

import torch
from torch import Tensor

from . import functional
from .base import BaseWeighting
from .gradients import GradientStats


class StatelessWeighting(BaseWeighting):
    """Weights that are a function of this step's losses and gradients.

    The last weights are used again outside training, and where a loss or a
    gradient's norm is not finite and positive, or the new weights are not
    finite.

    Attributes:
        weights (Tensor): The last weights, shape (2, ); (1, 1) at first.
    """

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('weights', torch.ones(2))

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        """Compute the weights; a subclass implements this.

        Args:
            losses (Tensor): As for :meth:`.BaseWeighting.weigh`.
            gradients (GradientStats, optional): As there.

        Returns:
            Tensor: Shape (2, ), detached.
        """
        raise NotImplementedError

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, None]:
        if not self.training:
            return self.weights.clone(), None
        found = self.compute_weights(losses, gradients)
        holds = functional.usable(losses) & torch.isfinite(found).all()
        if gradients is not None:
            holds &= functional.usable(gradients.norms)
        weights = torch.where(holds, found, self.weights)
        self.weights.copy_(weights)
        return weights, None
