"""Class losses made of the forward and the reverse KL divergence."""

import torch
from torch import Tensor

from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .class_kl import (
    ForwardKL,
    bernoulli_entropy,
    bernoulli_kl,
    categorical_entropy,
    categorical_kl,
)


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


class TwoWayKL(ForwardKL):
    """Base of what is made of both divergences and both entropies."""

    def combine(
        self,
        forward: Tensor,
        reverse: Tensor,
        student_entropy: Tensor,
        teacher_entropy: Tensor,
    ) -> Tensor:
        """One loss; shapes equal, entropies in [0, 1]."""
        raise NotImplementedError

    def binary(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor,
        temperature: float,
    ) -> Tensor:
        kl = self.combine(
            bernoulli_kl(student, teacher, temperature),
            bernoulli_kl(teacher, student, temperature),
            bernoulli_entropy(student, temperature),
            bernoulli_entropy(teacher, temperature),
        )
        return (kl * mask).sum(-1)

    def categorical(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> Tensor:
        return self.combine(
            categorical_kl(student, teacher, temperature),
            categorical_kl(teacher, student, temperature),
            categorical_entropy(student, temperature),
            categorical_entropy(teacher, temperature),
        ).clamp(min=0)


@MODELS.register_module()
class BalancedKL(TwoWayKL):
    """Forward and reverse KL divergence, weighed sample by sample, see
    :func:`balanced`.

    A sample is a class's score at a location where scores are binary, a
    location where they are a softmax. After the student's loss in BD-KD (arXiv
    2212.12965), whose teacher is trained, too: the gap between the entropies
    decides. The paper's constants could not be checked; weights that sum to
    1, and their default, are ours.

    Args:
        favoured (float): Weight of the favoured divergence, in [0.5, 1];
            the other one has the rest. 0.5 is the plain mean.

    Raises:
        ValueError: If ``favoured`` is out of range.
    """

    def __init__(self, favoured: float = 2 / 3) -> None:
        super().__init__()
        self.favoured = number(
            'favoured',
            favoured,
            '[0.5, 1]',
            '0.5 weighs both divergences the same',
        )

    def combine(
        self,
        forward: Tensor,
        reverse: Tensor,
        student_entropy: Tensor,
        teacher_entropy: Tensor,
    ) -> Tensor:
        return balanced(
            forward, reverse, student_entropy, teacher_entropy, self.favoured
        )


@MODELS.register_module()
class EntropyAwareKL(TwoWayKL):
    """Reverse KL divergence, plus the forward one where the teacher's entropy
    is high, see :func:`entropy_aware`.

    The source (arXiv 2603.07079) has language models that learn on their own
    samples; here every location of the batch counts.

    Args:
        threshold (float): Share of the largest entropy (ln 2 of a binary
            score, ln K of a softmax) above which it is high, in [0, 1]. For
            binary scores 0.5 means a probability between 0.11 and 0.89.

    Raises:
        ValueError: If ``threshold`` is out of range.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = number(
            'threshold',
            threshold,
            '[0, 1]',
            'it is a share of the largest entropy',
        )

    def combine(
        self,
        forward: Tensor,
        reverse: Tensor,
        student_entropy: Tensor,
        teacher_entropy: Tensor,
    ) -> Tensor:
        return entropy_aware(forward, reverse, teacher_entropy, self.threshold)
