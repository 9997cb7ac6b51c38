"""Dynamic weight average: more weight for the loss that falls slower."""

import torch
from torch import Tensor

from mmgor.io.config_values import integer, number
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.base import BaseWeighting
from mmgor.weighting.gradients import GradientStats


@MODELS.register_module()
class DWAWeighting(BaseWeighting):
    """w = 2 softmax(r / T), r_i the ratio of loss i's last two means.

    The paper's means are an epoch's; here they are over windows of
    ``interval`` calls, which need no data loader to count and give short runs
    a history, too. Until two windows are full the weights are (1, 1).

    Source: Liu, Johns & Davison, "End-to-End Multi-Task Learning with
    Attention", CVPR 2019, eq. 7.

    Losses of very different size: it is blind to size. Constant units cancel
    in r, the weights stay near (1, 1), and the larger loss rules. A loss that
    jumps up counts as one that falls slower: for a window it gets more weight,
    and nearly all of it from a factor of 10 on.

    Cost: none that shows in a step (docs/results/balancers.md). DDP: the
    losses are means over ranks. AMP: float32.

    Attributes:
        last (Tensor): Means of the last full window, shape (2, ).
        before (Tensor): Means of the one before it, shape (2, ).

    Args:
        interval (int): Calls in a window; an epoch's for the paper's method.
        temperature (float): T.

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
        """Add to the window; at its end, move the windows on."""
        usable = functional.usable(losses)
        self.total += torch.where(usable, losses, 0.0)
        self.count += usable
        full = self.count >= self.interval
        mean = self.total / self.count.clamp(min=1)
        # The first window is compared with itself: ratios of 1.
        previous = torch.where(self.windows > 0, self.last, mean)
        self.before.copy_(torch.where(full, previous, self.before))
        self.last.copy_(torch.where(full, mean, self.last))
        self.windows += full
        self.total *= ~full
        self.count *= ~full
