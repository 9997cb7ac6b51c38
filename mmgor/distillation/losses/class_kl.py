"""Divergences and entropies of class scores, and the default class loss.

A class loss is a divergence: it is not negative, and 0 where student and
teacher agree. This file has the Kullback-Leibler (KL) divergences and the
entropies of binary (sigmoid) and softmax scores. :class:`ForwardKL` is the
default loss of the KD heads on class scores, and the base of the others.
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

    It is the binary cross-entropy with soft labels minus the entropy of the
    labels, so that it is 0 where student and teacher agree.

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
    """KL(softmax(t / T) || softmax(s / T)) * T^2 over the last axis.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network",
    2015.

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
    """Entropy of sigmoid(x / T), relative to its maximum ln 2.

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
    """Entropy of softmax(x / T), relative to its maximum ln K.

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
    """KL(teacher || student) with temperature (Hinton et al., 2015).

    See :func:`bernoulli_kl` and :func:`categorical_kl`. N is the number of
    images, L that of locations (anchors or points of all levels), K that of
    classes.
    """

    def binary(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor,
        temperature: float,
    ) -> Tensor:
        """Divergence of sigmoid scores, summed over classes.

        Args:
            student (Tensor): Logits of shape (N, L, K).
            teacher (Tensor): Same shape.
            mask (Tensor): 1 for classes that the teacher knows, else 0,
                shape (K, ).
            temperature (float): T > 0.

        Returns:
            Tensor: Shape (N, L).
        """
        kl = bernoulli_kl(student, teacher, temperature)
        return (kl * mask).sum(-1)

    def categorical(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> Tensor:
        """Divergence of softmax scores.

        Args:
            student (Tensor): Logits of shape (N, L, K).
            teacher (Tensor): Same shape.
            temperature (float): T > 0.

        Returns:
            Tensor: Shape (N, L).
        """
        return categorical_kl(student, teacher, temperature)

    def weigh_locations(self, weights: Tensor, scores: Tensor) -> Tensor:
        """Change the weights of locations; this loss keeps them.

        Args:
            weights (Tensor): Weights of the KD head, not negative, shape
                (N, L).
            scores (Tensor): The teacher's foreground probabilities, shape
                (N, L, K).

        Returns:
            Tensor: Shape (N, L).
        """
        return weights
