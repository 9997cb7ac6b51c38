"""What balancers whose weights follow from this step alone have in common."""

import torch
from torch import Tensor

from . import functional
from .base import BaseWeighting
from .gradients import GradientStats


class StatelessWeighting(BaseWeighting):
    """Weights by a formula in this step's losses and gradients.

    Where a loss or a gradient is not finite and positive, or the formula's
    result overflows, and outside training, the last weights hold.

    Attributes:
        weights (Tensor): The last weights, shape (2, ); first (1, 1).
    """

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('weights', torch.ones(2))

    def compute_weights(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> Tensor:
        """The weights, shape (2, ); see :meth:`.BaseWeighting.weigh`."""
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
