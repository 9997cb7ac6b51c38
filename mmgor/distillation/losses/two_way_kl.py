"""Class losses that combine the forward and the reverse KL divergence.

The forward divergence KL(teacher || student) makes the student cover all that
the teacher considers likely. The reverse one, KL(student || teacher), makes
it seek the teacher's mode.
"""

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
    """Weigh both KL divergences, element by element.

    Where the student is less certain than the teacher, the reverse divergence
    is favoured, since it seeks the mode: f * reverse + (1 - f) * forward.
    Elsewhere the forward one is favoured, since it covers: f * forward +
    (1 - f) * reverse. The sample-wise weights follow BD-KD (Amara et al.,
    2022, arXiv 2212.12965).

    Args:
        forward (Tensor): KL(teacher || student), any shape.
        reverse (Tensor): KL(student || teacher), same shape.
        student_entropy (Tensor): Same shape.
        teacher_entropy (Tensor): Same shape.
        favoured (float): f in [0.5, 1]; 0.5 gives the plain mean.

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
    """Reverse KL, plus the forward one where the teacher is uncertain.

    reverse + [teacher_entropy > threshold] * forward (Jin et al., 2026, arXiv
    2603.07079). Where the teacher is uncertain, the mode-seeking reverse
    divergence alone would make the student pick one side.

    Args:
        forward (Tensor): KL(teacher || student), any shape.
        reverse (Tensor): KL(student || teacher), same shape.
        teacher_entropy (Tensor): Same shape.
        threshold (float): In the same unit as the entropy.

    Returns:
        Tensor: Same shape.
    """
    return reverse + (teacher_entropy > threshold) * forward


class TwoWayKL(ForwardKL):
    """Base of losses of both divergences and the entropies of both sides."""

    def combine(
        self,
        forward: Tensor,
        reverse: Tensor,
        student_entropy: Tensor,
        teacher_entropy: Tensor,
    ) -> Tensor:
        """Combine the divergences elementwise into one loss.

        Args:
            forward (Tensor): KL(teacher || student), any shape.
            reverse (Tensor): KL(student || teacher), same shape.
            student_entropy (Tensor): Relative to its maximum, in [0, 1], same
                shape.
            teacher_entropy (Tensor): Likewise.

        Returns:
            Tensor: Same shape.
        """
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
    """Forward and reverse KL divergence with weights for each sample.

    See :func:`balanced`. A sample is the score of one class at one location
    if scores are binary, and one location if they are a softmax. The weights
    depend on which of student and teacher has the larger entropy, as in the
    student's loss of BD-KD (arXiv 2212.12965; there the teacher is trained,
    too). The constants of the paper could not be checked: weights that sum to
    1, and their default, are ours.

    Args:
        favoured (float): Weight of the favoured divergence, in [0.5, 1]. The
            other one weighs ``1 - favoured``. 0.5 gives the plain mean.

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
    """Reverse KL, plus forward KL where the teacher's entropy is high.

    See :func:`entropy_aware`. The source (arXiv 2603.07079) trains language
    models on samples that they draw themselves; here every location of the
    batch counts.

    Args:
        threshold (float): Entropy above which the teacher is uncertain,
            relative to the maximum (ln 2 for a binary score, ln K for a
            softmax), in [0, 1]. For binary scores, 0.5 means a probability
            between 0.11 and 0.89.

    Raises:
        ValueError: If ``threshold`` is out of range.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = number(
            'threshold',
            threshold,
            '[0, 1]',
            'it is relative to the largest possible entropy',
        )

    def combine(
        self,
        forward: Tensor,
        reverse: Tensor,
        student_entropy: Tensor,
        teacher_entropy: Tensor,
    ) -> Tensor:
        return entropy_aware(forward, reverse, teacher_entropy, self.threshold)
