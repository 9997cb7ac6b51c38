"""KL divergence of the classes or locations with the largest scores."""

import torch
from torch import Tensor

from mmgor.io.config_values import choice, integer
from mmgor.registry import MODELS

from .class_kl import ForwardKL, categorical_kl

OVER = ('classes', 'locations')


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """Mark the k largest scores along the last axis, or all if K < k.

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
    """KL divergence of the teacher's top k classes and one class for the rest.

    A sum over the top k alone could be negative. Here the other classes are
    joined into one, which keeps their probability mass: the result lies
    between 0 and :func:`~.class_kl.categorical_kl` of all classes (data
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


@MODELS.register_module()
class TopKKL(ForwardKL):
    """Forward KL divergence where the teacher's scores are largest.

    With ``over='classes'``, only the k classes with the teacher's largest
    scores count at each location. Binary scores of other classes are left
    out. Softmax scores of other classes are joined
    (:func:`top_k_categorical_kl`); background counts as a class. With
    ``over='locations'``, only k locations of each image count, over all
    levels: those with the largest foreground score of the teacher.

    There is no single source. Keeping only the teacher's top k outputs is
    common with large vocabularies ("top-K distillation" in Tan et al., ICLR
    2019, arXiv 1902.10461), sometimes with one class for the rest, as here.
    The versions for binary scores and for locations are ours.

    Args:
        k (int): At least 1. Over classes, at most their number.
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
            mask = mask * top_k_mask(known, self.k)
        return super().binary(student, teacher, mask, temperature)

    def categorical(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> Tensor:
        if self.over == 'locations':
            return super().categorical(student, teacher, temperature)
        self._check_classes(student.shape[-1])
        return top_k_categorical_kl(
            student, teacher, self.k, temperature
        ).clamp(min=0)

    def weigh_locations(self, weights: Tensor, scores: Tensor) -> Tensor:
        if self.over == 'classes':
            return weights
        return weights * top_k_mask(scores.amax(-1), self.k)

    def _check_classes(self, num_classes: int) -> None:
        if self.k > num_classes:
            raise ValueError(
                f'TopKKL(k={self.k}) of a head with {num_classes} class '
                f'outputs; expected k <= {num_classes}.'
            )
