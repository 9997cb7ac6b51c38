"""Distillation losses as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def bernoulli_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL(sigmoid(t / T) || sigmoid(s / T)) * T^2, elementwise.

    Binary cross-entropy against soft labels less the labels' own entropy, so
    that it is 0 where student and teacher agree.

    Args:
        student_logits (Tensor): Any shape.
        teacher_logits (Tensor): Same shape.
        temperature (float): T > 0.

    Returns:
        Tensor: Same shape, not negative.
    """
    s = student_logits / temperature
    t = teacher_logits / temperature
    p = torch.sigmoid(t)
    # log sigma(x) = -softplus(-x) and log(1 - sigma(x)) = -softplus(x).
    positive = p * (F.softplus(-s) - F.softplus(-t))
    negative = (1 - p) * (F.softplus(s) - F.softplus(t))
    return (positive + negative).clamp(min=0) * temperature**2


def categorical_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL(softmax(t / T) || softmax(s / T)) * T^2 over the last axis
    (Hinton et al., 2015).

    Args:
        student_logits (Tensor): Shape (..., K).
        teacher_logits (Tensor): Same shape.
        temperature (float): T > 0.

    Returns:
        Tensor: Shape (...).
    """
    log_s = F.log_softmax(student_logits / temperature, -1)
    log_t = F.log_softmax(teacher_logits / temperature, -1)
    return (log_t.exp() * (log_t - log_s)).sum(-1) * temperature**2


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


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """PKD (Cao et al., NeurIPS 2022, eq. 4): features are normalised to zero
    mean and unit variance per channel over (N, H, W); half their mean squared
    difference is 1 - Pearson's correlation.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Same shape.

    Returns:
        Tensor: Scalar in [0, 2].
    """
    return F.mse_loss(_standardised(student), _standardised(teacher)) / 2


def _standardised(x: Tensor) -> Tensor:
    flat = x.transpose(0, 1).flatten(1)
    mean = flat.mean(1, keepdim=True)
    std = flat.std(1, unbiased=False, keepdim=True)
    return (flat - mean) / (std + EPS)


def cwd(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """CWD (Shu et al., ICCV 2021, eq. 3-4): KL between the spatial softmax
    maps of each channel, times T^2, mean over pictures and channels.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Same shape.
        temperature (float): T > 0.

    Returns:
        Tensor: Scalar.
    """
    return categorical_kl(
        student.flatten(2), teacher.flatten(2), temperature
    ).mean()


def feature_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features of one shape."""
    return F.mse_loss(student, teacher)


def flatten_anchors(x: Tensor, num_classes: int) -> Tensor:
    """(N, A * K, H, W) head output to (N, H * W * A, K), mmdet's order."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, num_classes)
