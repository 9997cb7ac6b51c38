"""Weights set by hand."""

import torch
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .base import BaseWeighting
from .gradients import GradientStats


@MODELS.register_module()
class FixedWeighting(BaseWeighting):
    """task_weight * task + kd_weight * distillation.

    Losses of very different size: what a weight means depends on the sizes of
    the two losses, so it has to be searched for again with every new loss.
    Cost: none. DDP and AMP: nothing is needed.

    Args:
        task_weight (float): At least 0.
        kd_weight (float): At least 0.

    Raises:
        ValueError: If a weight is negative or both are 0.
    """

    weights: Tensor

    def __init__(
        self, task_weight: float = 1.0, kd_weight: float = 1.0
    ) -> None:
        super().__init__()
        weights = [
            number('task_weight', task_weight, '[0, inf)'),
            number('kd_weight', kd_weight, '[0, inf)'),
        ]
        if weights == [0, 0]:
            raise ValueError(
                'expected weights >= 0, not both 0, got task_weight='
                f'{task_weight} and kd_weight={kd_weight}.'
            )
        self.register_buffer(
            'weights', torch.tensor(weights), persistent=False
        )

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, None]:
        return self.weights, None
