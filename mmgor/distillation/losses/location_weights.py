"""How much each location counts in a KD loss."""

from mmengine import dist
from torch import Tensor

EPS = 1e-6


def foreground_weight(teacher_scores: Tensor, gamma: float) -> Tensor:
    """Weight of each location: (its largest class score)^gamma.

    Args:
        teacher_scores (Tensor): Foreground probabilities, shape (..., K).
        gamma (float): Not negative; 0 gives all locations the same weight.

    Returns:
        Tensor: Shape (...).
    """
    return teacher_scores.amax(-1) ** gamma


def weighted_mean(
    values: Tensor, weights: Tensor, over_ranks: bool = True
) -> Tensor:
    """sum(values * weights) / sum(weights).

    In a distributed run, the divisor is the mean over the ranks, as that of
    mmdet's own losses. The mean of the ranks' results is then that of all
    their locations together.

    Args:
        values (Tensor): Any shape.
        weights (Tensor): Not negative, same shape, without a gradient.
        over_ranks (bool): False: of this rank alone, as for the log.

    Returns:
        Tensor: Scalar; 0 if all weights are 0.
    """
    total = weights.sum()
    if over_ranks:
        dist.all_reduce(total, 'mean')
    return (values * weights).sum() / total.clamp(min=EPS)
