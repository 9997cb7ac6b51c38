"""Weights of several teachers, and their fused target, as pure functions.

``known`` tells which of the K classes each of the M teachers has, as a bool
tensor of shape (M, ..., K) with 1 for every axis of locations; K = 1 where
all teachers have all classes. Weights sum to 1 over the teachers that know a
class; they are 0 for a class that no teacher knows.
"""

import math

import torch
from torch import Tensor


def covered_classes(known: Tensor) -> Tensor:
    """Classes that at least one teacher knows: (M, ..., K) to (..., K)."""
    return known.any(0)


def certainty(probabilities: Tensor) -> Tensor:
    """1 - H(p) / ln 2 of the largest probability p, H the binary entropy in
    nats: 1 where it is certain that there is, or is not, an object, 0 at 1/2.

    Args:
        probabilities (Tensor): Foreground, shape (..., K).

    Returns:
        Tensor: In [0, 1], float32 at least, shape (...).
    """
    largest = probabilities.amax(-1)
    # With p = (1 + d) / 2; differences of entropies would be noise near 0.
    d = 2 * largest.to(torch.promote_types(largest.dtype, torch.float)) - 1
    gain = torch.special.xlog1py(1 + d, d) + torch.special.xlog1py(1 - d, -d)
    return (gain / (2 * math.log(2))).clamp(0, 1)


def equal_weights(known: Tensor) -> Tensor:
    """1 / (teachers that know the class): shape of ``known``."""
    return known / known.sum(0).clamp(min=1)


def proportional_weights(strength: Tensor, known: Tensor) -> Tensor:
    """``strength`` normalised over the teachers, equal where all are 0.

    Args:
        strength (Tensor): Not negative, shape (M, ..., 1).
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Shape (M, ..., K).
    """
    share = strength * known
    total = share.sum(0)
    tiny = torch.finfo(share.dtype).tiny
    return torch.where(
        total > 0, share / total.clamp(min=tiny), equal_weights(known)
    )


def softmax_weights(logits: Tensor, known: Tensor) -> Tensor:
    """Softmax of ``logits`` over the teachers that know the class.

    Args:
        logits (Tensor): Shape (M, ).
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Shape of ``known``.
    """
    column = logits.view(-1, *[1] * (known.dim() - 1))
    lowest = torch.finfo(logits.dtype).min
    # The product is for classes nobody knows: there softmax gives 1 / M.
    return column.masked_fill(~known, lowest).softmax(0) * known


def mean_weights(weights: Tensor, known: Tensor) -> Tensor:
    """Mean over locations and covered classes, shape (M, ), no gradient."""
    shape = (len(weights), -1, weights.shape[-1])
    each = weights.detach().reshape(shape).mean(1).sum(-1)
    return each / covered_classes(known).sum().clamp(min=1)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || uniform) = sum w ln w + ln M, scalar."""
    log_weights = logits.log_softmax(0)
    return (log_weights.exp() * log_weights).sum() + math.log(len(logits))
