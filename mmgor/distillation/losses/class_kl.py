"""Losses on class scores as registered modules, thin shells of
``functional``.

Each is a divergence: not negative, and 0 where student and teacher agree.
"""

from torch import Tensor, nn

from mmgor.io.config_values import choice, integer, number
from mmgor.registry import MODELS

from . import functional

OVER = ('classes', 'locations')


@MODELS.register_module()
class ForwardKL(nn.Module):
    """KL(teacher || student) with temperature (Hinton et al., 2015), see
    :func:`functional.bernoulli_kl` and :func:`functional.categorical_kl`.
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
        kl = functional.bernoulli_kl(student, teacher, temperature)
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
        return functional.categorical_kl(student, teacher, temperature)

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
            functional.bernoulli_kl(student, teacher, temperature),
            functional.bernoulli_kl(teacher, student, temperature),
            functional.bernoulli_entropy(student, temperature),
            functional.bernoulli_entropy(teacher, temperature),
        )
        return (kl * mask).sum(-1)

    def categorical(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> Tensor:
        return self.combine(
            functional.categorical_kl(student, teacher, temperature),
            functional.categorical_kl(teacher, student, temperature),
            functional.categorical_entropy(student, temperature),
            functional.categorical_entropy(teacher, temperature),
        ).clamp(min=0)


@MODELS.register_module()
class BalancedKL(TwoWayKL):
    """Forward and reverse KL divergence, weighed sample by sample, see
    :func:`functional.balanced`.

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
        return functional.balanced(
            forward, reverse, student_entropy, teacher_entropy, self.favoured
        )


@MODELS.register_module()
class EntropyAwareKL(TwoWayKL):
    """Reverse KL divergence, plus the forward one where the teacher's entropy
    is high, see :func:`functional.entropy_aware`.

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
        return functional.entropy_aware(
            forward, reverse, teacher_entropy, self.threshold
        )


@MODELS.register_module()
class TopKKL(ForwardKL):
    """Forward KL divergence of what the teacher is most confident of.

    Over classes: at each location the k classes with the teacher's largest
    scores. Binary scores of other classes are left out; those of a softmax
    are joined (:func:`functional.top_k_categorical_kl`), background counts as
    a class. Over locations: the k of each picture, over all levels, where the
    teacher's largest foreground score is largest.

    It has no single source: to cut the teacher's answer to its top k is
    common with large vocabularies ("top-K distillation" in Tan et al., ICLR
    2019, arXiv 1902.10461), sometimes with one class for the rest, as here.
    Binary scores and locations are our adaptation.

    Args:
        k (int): At least 1; at most the number of classes.
        over (str): 'classes' or 'locations'.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, k: int, over: str = 'classes') -> None:
        super().__init__()
        self.k = integer('k', k, 1)
        self.over = choice('over', over, OVER)

    def binary(
        self,
        student: Tensor,
        teacher: Tensor,
        mask: Tensor,
        temperature: float,
    ) -> Tensor:
        if self.over == 'classes':
            self._check_classes(student.shape[-1])
            known = teacher.masked_fill(mask == 0, -float('inf'))
            mask = mask * functional.top_k_mask(known, self.k)
        return super().binary(student, teacher, mask, temperature)

    def categorical(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> Tensor:
        if self.over == 'locations':
            return super().categorical(student, teacher, temperature)
        self._check_classes(student.shape[-1])
        return functional.top_k_categorical_kl(
            student, teacher, self.k, temperature
        ).clamp(min=0)

    def weigh_locations(self, weights: Tensor, scores: Tensor) -> Tensor:
        if self.over == 'classes':
            return weights
        return weights * functional.top_k_mask(scores.amax(-1), self.k)

    def _check_classes(self, num_classes: int) -> None:
        if self.k > num_classes:
            raise ValueError(
                f'TopKKL(k={self.k}) of a head with {num_classes} class '
                f'outputs; expected k <= {num_classes}.'
            )
