"""How much each location counts in a KD loss."""

from torch import Tensor

EPS = 1e-6


def foreground_weight(teacher_scores: Tensor, gamma: float) -> Tensor:
    """(largest class score)^gamma of each anchor.

    Args:
        teacher_scores (Tensor): Foreground probabilities, shape (..., K).
        gamma (float): 0 weighs every anchor the same.

    Returns:
        Tensor: Shape (...).
    """
    return teacher_scores.amax(-1) ** gamma


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum(values * weights) / sum(weights), shapes equal, scalar result."""
    return (values * weights).sum() / weights.sum().clamp(min=EPS)
