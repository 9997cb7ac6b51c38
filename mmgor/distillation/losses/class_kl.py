"""Divergences between class scores, and the losses made of one of them.

A class loss is a divergence: not negative, and 0 where student and teacher
agree. This file has the Kullback-Leibler divergences and entropies of binary
and of softmax scores, and :class:`ForwardKL`, the default.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.registry import MODELS


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


@MODELS.register_module()
class ForwardKL(nn.Module):
    """KL(teacher || student) with temperature (Hinton et al., 2015), see
    :func:`bernoulli_kl` and :func:`categorical_kl`.
    """

    def binary(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor,
        temperature: float,
    ) -> Tensor:
        """Of sigmoid scores, summed over classes.

        Args:
            student (Tensor): Logits of shape (N, L, K).
            teacher (Tensor): Same shape.
            mask (Tensor): 1 for classes that count, else 0, shape (K, ).
            temperature (float): > 0.

        Returns:
            Tensor: Shape (N, L).
        """
        kl = bernoulli_kl(student, teacher, temperature)
        return (kl * mask).sum(-1)

    def categorical(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> Tensor:
        """Of softmax scores.

        Args:
            student (Tensor): Logits of shape (N, L, K).
            teacher (Tensor): Same shape.
            temperature (float): > 0.

        Returns:
            Tensor: Shape (N, L).
        """
        return categorical_kl(student, teacher, temperature)

    def weigh_locations(self, weights: Tensor, scores: Tensor) -> Tensor:
        """Weights of locations as this loss wants them.

        Args:
            weights (Tensor): Not negative, shape (N, L).
            scores (Tensor): The teacher's foreground probabilities, shape
                (N, L, K).

        Returns:
            Tensor: Shape (N, L).
        """
        return weights
