"""Dynamic weight average: the loss that falls more slowly gets more weight."""

import torch
from torch import Tensor

from mmgor.io.config_values import integer, number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.base import BaseWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class DWAWeighting(BaseWeighting):
    """w = 2 softmax(r / T), where r_i is the ratio of loss i's last two means.

    The paper takes the mean over an epoch. Here it is over a window of
    ``interval`` calls, so the balancer does not need to know the data loader,
    and short runs have a history too. Until two windows are full, the weights
    are (1, 1).

    Source: Liu, Johns & Davison, "End-to-End Multi-Task Learning with
    Attention", CVPR 2019, eq. 7.

    Losses of very different size: it does not balance them. Constant units
    cancel in r, so the weights stay near (1, 1) and the larger loss dominates.
    A loss that jumps up counts as one that falls more slowly: it gets more
    weight for one window, and nearly all of it if it jumps by a factor of 10
    or more.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP: losses are averaged over the ranks. AMP:
    float32.

    Attributes:
        last (Tensor): Mean losses of the last full window, shape (2, ).
        before (Tensor): Mean losses of the window before it, shape (2, ).

    Args:
        interval (int): Number of calls in a window; the paper's method has as
            many as an epoch has iterations.
        temperature (float): The paper's T.

    Raises:
        ValueError: If an argument is out of range.
    """

    last: Tensor
    before: Tensor
    total: Tensor
    count: Tensor
    windows: Tensor

    def __init__(self, interval: int = 200, temperature: float = 2.0) -> None:
        super().__init__()
        self.interval = integer('interval', interval, 1)
        self.temperature = number('temperature', temperature, '(0, inf)')
        self.register_buffer('last', torch.ones(2))
        self.register_buffer('before', torch.ones(2))
        self.register_buffer('total', torch.zeros(2))
        self.register_buffer('count', torch.zeros((), dtype=torch.int64))
        self.register_buffer('windows', torch.zeros((), dtype=torch.int64))

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, None]:
        weights = functional.descent_weights(
            self.last, self.before, self.temperature
        )
        if self.training:
            self._observe(losses)
        return weights, None

    def _observe(self, losses: Tensor) -> None:
        """Add the losses to the window; start a new one when it is full."""
        usable = functional.usable(losses)
        self.total += torch.where(usable, losses, 0.0)
        self.count += usable
        full = self.count >= self.interval
        mean = self.total / self.count.clamp(min=1)
        # The first window is compared with itself, which gives ratios of 1.
        previous = torch.where(self.windows > 0, self.last, mean)
        self.before.copy_(torch.where(full, previous, self.before))
        self.last.copy_(torch.where(full, mean, self.last))
        self.windows += full
        self.total *= ~full
        self.count *= ~full
