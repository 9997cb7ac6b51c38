"""Random loss weighting."""

import torch
from mmengine import dist
from torch import Tensor

from mmgor.io.config_values import integer
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.base import BaseWeighting
from mmgor.weighting.gradients import GradientStats

# Draws before they repeat; drawn ahead, so that no step waits for the host.
PERIOD = 2**14


@MODELS.register_module()
class RLWWeighting(BaseWeighting):
    """w = 2 softmax(z), z standard normal, drawn anew every call.

    The paper's weights sum to 1. The n-th call takes the n-th of
    ``PERIOD`` = 16,384 draws, which follow from ``seed`` alone; a resumed run
    goes on with those of its checkpoint.

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting", TMLR
    2022, arXiv 2111.10603 (RLW, normal distribution).

    Losses of very different size: it is blind to size. In the mean the weights
    are (1, 1), so the larger loss rules, with noise. It is the baseline that a
    balancer should beat.

    Cost: none that shows in a step (docs/results/balancers.md). DDP: each rank
    has rank 0's draws and the same count of calls. AMP: float32.

    Args:
        seed (int, optional): Of the draws; default: torch's, which is the
            run's.

    Raises:
        ValueError: If ``seed`` is no integer from 0 to 2**64 - 1.
    """

    draws: Tensor
    calls: Tensor

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        if seed is None:
            seed = torch.initial_seed()
        generator = torch.Generator().manual_seed(
            integer('seed', seed, 0, 2**64 - 1)
        )
        draws = torch.randn(PERIOD, 2, generator=generator)
        dist.broadcast(draws)
        self.register_buffer('draws', draws)
        self.register_buffer('calls', torch.zeros((), dtype=torch.int64))

    def weigh(
        self, losses: Tensor, gradients: GradientStats | None
    ) -> tuple[Tensor, None]:
        draw = self.draws.index_select(0, (self.calls % PERIOD)[None])[0]
        if self.training:
            self.calls += functional.usable(losses)
        return 2 * torch.softmax(draw, 0), None
