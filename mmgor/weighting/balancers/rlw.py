"""Random loss weighting: new random weights in every step."""

import torch
from mmengine import dist
from torch import Tensor

from mmgor.io.config_values import integer
from mmgor.registry import MODELS
from mmgor.weighting import functional
from mmgor.weighting.base import BaseWeighting
from mmgor.weighting.gradients import GradientStats

# After this many calls the weights repeat. They are drawn at construction, so
# that no step has to copy one from the host.
PERIOD = 2**14


@MODELS.register_module()
class RLWWeighting(BaseWeighting):
    """w = 2 softmax(z), with a new standard normal z in every call.

    The paper's weights sum to 1. The n-th call uses the n-th of
    ``PERIOD`` = 16,384 draws, which depend on ``seed`` alone. A resumed run
    goes on with the draws of its checkpoint.

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting", TMLR
    2022, arXiv 2111.10603 (RLW, normal distribution).

    Losses of very different size: it does not balance them. The mean of the
    weights is (1, 1), so the larger loss dominates, with noise. It is the
    baseline that a balancer should beat.

    Cost: a step takes as long as one with fixed weights, within 1 %
    (docs/results/balancers.md). DDP: all ranks have the draws of rank 0 and
    the same count of calls. AMP: float32.

    Args:
        seed (int, optional): Seed of the draws. Default: torch's initial seed,
            which is the seed of the run.

    Raises:
        ValueError: If ``seed`` is not an integer from 0 to 2**64 - 1.
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
