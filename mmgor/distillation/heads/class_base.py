"""The base class of KD heads that compare class scores."""

from typing import Any

import torch
from torch import Tensor

from mmgor.distillation.fusion.probabilities import TeacherFusion
from mmgor.distillation.losses.class_kl import ForwardKL
from mmgor.distillation.losses.location_weights import (
    foreground_weight,
    weighted_mean,
)
from mmgor.distillation.teachers.class_mapping import UNKNOWN, take_classes
from mmgor.io.config_values import number
from mmgor.registry import build_own

from .base import BaseKDHead

#: Fused probabilities are clamped to [EPS, 1 - EPS] before their logit.
EPS = 1e-6


class ClassKDHead(BaseKDHead):
    """Maps classes, fuses teachers and averages the divergence of scores.

    The loss is the binary KL divergence of each class's score, summed over
    the classes that the teachers know and averaged over locations. The weight
    of a location is the teacher's largest score to the power
    ``foreground_gamma``, so that background does not outweigh the few
    objects.

    Args:
        temperature (float): Temperature of the loss, > 0.
        foreground_gamma (float): 0 weighs all locations the same.
        loss (dict): Registered class loss, see
            :mod:`~mmgor.distillation.losses.class_kl`; default ForwardKL.
        fusion (str): How the scores of several teachers become one, see
            :class:`~mmgor.distillation.fusion.probabilities.TeacherFusion`.
        **kwargs: Arguments of :class:`BaseKDHead`.

    Raises:
        ValueError: If an argument is out of range.
    """

    fuses = True
    reads_classes = True
    fusion: TeacherFusion | None

    def __init__(
        self,
        temperature: float = 1.0,
        foreground_gamma: float = 1.0,
        loss: dict | None = None,
        fusion: str = 'mean',
        student_tap: str = 'bbox_head',
        teacher_tap: str = 'bbox_head',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, teacher_tap, **kwargs)
        self.temperature = number('temperature', temperature, '(0, inf)')
        self.foreground_gamma = number(
            'foreground_gamma', foreground_gamma, '[0, inf)'
        )
        loss = dict(type='ForwardKL') if loss is None else loss
        self.loss: ForwardKL = build_own(
            'loss', loss, ForwardKL, 'loss=dict(type=...)'
        )
        # Built for one teacher too, so that an unknown fusion is refused.
        several = TeacherFusion(fusion, max(1, len(self.teachers)))
        if fusion != 'mean' and len(self.teachers) < 2:
            raise ValueError(
                f'fusion={fusion!r} needs several teachers, expected e.g. '
                f"teacher=['r50', 'gfl'], got {self.teachers or 'one'}. "
                'Remove fusion, or name more teachers.'
            )
        self.fusion = several if len(self.teachers) > 1 else None

    def distil(self, student: Tensor, teachers: list[Tensor]) -> Tensor:
        """Binary KD from one or several teachers.

        Args:
            student (Tensor): Logits of shape (N, L, K).
            teachers (list[Tensor]): Logits of shape (N, L, K_t), each in its
                teacher's own class order.

        Returns:
            Tensor: The loss, a scalar.
        """
        indices = self.class_tensors(
            student.device, student.shape[-1], [x.shape[-1] for x in teachers]
        )
        maps = [take_classes(x, i) for x, i in zip(teachers, indices)]
        known = torch.stack([index != UNKNOWN for index in indices])
        if self.fusion is None:
            return self._mean_kl(student, maps[0], known[0])
        scores = torch.stack([x.sigmoid() for x in maps])
        fused, shares = self.fusion(scores, known)
        self._log(student, maps, known, shares)
        target = torch.logit(fused, eps=EPS)
        loss = self._mean_kl(student, target, known.any(0))
        return loss + self.fusion.regularizer(loss)

    def _mean_kl(
        self, s: Tensor, t: Tensor, kept: Tensor, over_ranks: bool = True
    ) -> Tensor:
        # A product instead of an index, whose size the host would wait for.
        mask = kept.to(s.dtype)
        # Weights are constants: a learned fusion gets no gradient by them.
        scores = t.detach().sigmoid() * mask
        kl = self.loss.binary(s, t, mask, self.temperature)
        return weighted_mean(kl, self._weights(scores), over_ranks)

    def _weights(self, scores: Tensor) -> Tensor:
        """Weights of locations (N, L) from foreground scores (N, L, K)."""
        weights = foreground_weight(scores, self.foreground_gamma)
        return self.loss.weigh_locations(weights, scores)

    @torch.no_grad()
    def _log(
        self, student: Tensor, maps: list[Tensor], known: Tensor, shares: Any
    ) -> None:
        self.shares = dict(zip(self.teachers, shares))
        self.teacher_losses = {
            name: self._mean_kl(student, x, kept, False) * self.loss_weight
            for name, x, kept in zip(self.teachers, maps, known)
        }
