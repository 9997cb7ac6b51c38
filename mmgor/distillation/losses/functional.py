"""Distillation losses as pure functions."""

import math

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


def bernoulli_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of sigmoid(x / T) as a share of the largest, ln 2.

    Args:
        logits (Tensor): Any shape.
        temperature (float): T > 0.

    Returns:
        Tensor: Same shape, in [0, 1].
    """
    x = logits / temperature
    # -log sigma(x) = softplus(x) - x, so that H = softplus(x) - x sigma(x).
    entropy = F.softplus(x) - x * torch.sigmoid(x)
    return (entropy / math.log(2)).clamp(0, 1)


def categorical_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(x / T) as a share of the largest, ln K.

    Args:
        logits (Tensor): Shape (..., K), K > 1.
        temperature (float): T > 0.

    Returns:
        Tensor: Shape (...), in [0, 1].
    """
    log_p = F.log_softmax(logits / temperature, -1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return (entropy / math.log(logits.shape[-1])).clamp(0, 1)


def balanced(
    forward: Tensor,
    reverse: Tensor,
    student_entropy: Tensor,
    teacher_entropy: Tensor,
    favoured: float,
) -> Tensor:
    """Both KL divergences, the more useful one with the larger weight.

    f * reverse + (1 - f) * forward where the student is less certain than
    the teacher: the reverse divergence seeks the mode. f * forward + (1 - f)
    * reverse elsewhere: the forward one covers. Sample-wise weights after
    BD-KD (Amara et al., 2022, arXiv 2212.12965).

    Args:
        forward (Tensor): KL(teacher || student), any shape.
        reverse (Tensor): KL(student || teacher), same shape.
        student_entropy (Tensor): Same shape.
        teacher_entropy (Tensor): Same shape.
        favoured (float): f in [0.5, 1]; 0.5 is the plain mean.

    Returns:
        Tensor: Same shape.
    """
    seeks = student_entropy > teacher_entropy
    more = torch.where(seeks, reverse, forward)
    less = torch.where(seeks, forward, reverse)
    return favoured * more + (1 - favoured) * less


def entropy_aware(
    forward: Tensor,
    reverse: Tensor,
    teacher_entropy: Tensor,
    threshold: float,
) -> Tensor:
    """reverse + [teacher_entropy > threshold] * forward (Jin et al., 2026,
    arXiv 2603.07079): where the teacher hesitates, the mode-seeking reverse
    divergence alone would have the student pick one side.

    Args:
        forward (Tensor): KL(teacher || student), any shape.
        reverse (Tensor): KL(student || teacher), same shape.
        teacher_entropy (Tensor): Same shape.
        threshold (float): In the unit of the entropy.

    Returns:
        Tensor: Same shape.
    """
    return reverse + (teacher_entropy > threshold) * forward


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """The k largest along the last axis; all, if there are no more.

    Args:
        scores (Tensor): Shape (..., K).
        k (int): At least 1.

    Returns:
        Tensor: Bool, same shape.
    """
    top = scores.topk(min(k, scores.shape[-1]), -1).indices
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter(-1, top, True)


def top_k_categorical_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    k: int,
    temperature: float = 1.0,
) -> Tensor:
    """:func:`categorical_kl` of the teacher's k likeliest classes and one
    class for all others together.

    Without the others the sum could be negative. Joined they keep their mass:
    the result lies between 0 and the divergence of all classes (data
    processing inequality).

    Args:
        student_logits (Tensor): Shape (..., K).
        teacher_logits (Tensor): Same shape.
        k (int): 1 <= k <= K.
        temperature (float): T > 0.

    Returns:
        Tensor: Shape (...).
    """
    if k >= teacher_logits.shape[-1] - 1:  # at most one class is joined
        return categorical_kl(student_logits, teacher_logits, temperature)
    order = teacher_logits.argsort(-1, descending=True)
    joined = []
    for logits in (student_logits, teacher_logits):
        x = (logits / temperature).gather(-1, order)
        rest = x[..., k:].logsumexp(-1, True)
        joined.append(torch.cat([x[..., :k], rest], -1))
    return categorical_kl(joined[0], joined[1]) * temperature**2


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


def systematic_draw(scores: Tensor, start: Tensor) -> Tensor:
    """Draw each entry with a probability equal to its score.

    Systematic sampling (Madow, Ann. Math. Stat. 1949): entry i is drawn where
    the running sum of scores, begun at ``start``, crosses an integer. So the
    number drawn is the sum of the scores, rounded up or down.

    Args:
        scores (Tensor): In [0, 1], shape (n, ).
        start (Tensor): Uniform in [0, 1), a scalar.

    Returns:
        Tensor: Whether drawn, bool, shape (n, ).
    """
    # Doubles: the step over a score of 1 has to cross an integer.
    sums = torch.cat([start.view(1), scores]).double().cumsum(0).floor()
    return sums[1:] > sums[:-1]


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
    # A constant channel, as rounding can make, would get a gradient / EPS.
    return torch.where(std > 0, (flat - mean) / (std + EPS), 0.0)


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
