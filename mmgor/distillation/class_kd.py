"""KD heads for class scores: of one layout, or of any dense head."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .class_lists import UNKNOWN, take_classes
from .dense_scores import head_strides, score_logits
from .fusion import TeacherFusion
from .head_facts import (
    anchors_per_level,
    check_logits,
    check_same_levels,
    head_facts,
)
from .kd_base import BaseKDHead
from .levels import common_strides, crop_to_common, pick_strides
from .losses import check_temperature
from .taps import Tapped, as_list
from .teacher import Teacher

# Of probabilities that become logits again after fusion.
EPS = 1e-6


class ClassKDHead(BaseKDHead):
    """What KD heads on class scores share: classes, fusion, divergence.

    The binary KL divergence of each class's score, summed over the classes
    that teachers know, averaged over locations with the teacher's largest
    score to the power ``foreground_gamma`` as weight, so that the few objects
    are not drowned by background.

    Args:
        temperature (float): > 0.
        foreground_gamma (float): 0 weighs all locations the same.
        fusion (str): How several teachers' scores become one, see
            :class:`~.fusion.TeacherFusion`.
        **kwargs: Of :class:`BaseKDHead`.

    Raises:
        ValueError: If an argument is out of range.
    """

    fuses = True
    fusion: TeacherFusion | None

    def __init__(
        self,
        temperature: float = 1.0,
        foreground_gamma: float = 1.0,
        fusion: str = 'mean',
        student_tap: str = 'bbox_head',
        teacher_tap: str = 'bbox_head',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, teacher_tap, **kwargs)
        check_temperature(temperature)
        if foreground_gamma < 0:
            raise ValueError(
                f'foreground_gamma must be at least 0, got {foreground_gamma}.'
            )
        self.temperature = temperature
        self.foreground_gamma = foreground_gamma
        # Built for one teacher too, so that an unknown kind is seen.
        several = TeacherFusion(fusion, max(1, len(self.teachers)))
        self.fusion = several if len(self.teachers) > 1 else None

    def distil(self, student: Tensor, teachers: list[Tensor]) -> Tensor:
        """Binary KD from one or several teachers.

        Args:
            student (Tensor): Logits of shape (N, L, K).
            teachers (list[Tensor]): Logits of shape (N, L, K_t), each in the
                teacher's own class order.
        """
        maps, known = self._in_student_classes(student, teachers)
        if self.fusion is None:
            kept = known[0]
            return self._mean_kl(student, maps[0], kept)
        scores = torch.stack([x.sigmoid() for x in maps])
        fused, shares = self.fusion(scores, known)
        self._log(student, maps, known, shares)
        kept = known.any(0)
        loss = self._mean_kl(student, torch.logit(fused, eps=EPS), kept)
        return loss + self.fusion.regularizer(loss)

    def _in_student_classes(
        self, student: Tensor, teachers: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Teachers' logits of shape (N, L, K) and what they know, (M, K)."""
        indices = self.class_indices
        if indices is None:
            for name, x in zip(self.teachers, teachers):
                if x.shape[-1] != student.shape[-1]:
                    raise RuntimeError(
                        f'teacher {name!r} has {x.shape[-1]} classes, the '
                        f'student {student.shape[-1]}, and nobody mapped them '
                        'by name; expected custom_hooks=[dict(type='
                        "'GoRWeightHook')], which does."
                    )
            indices = [list(range(student.shape[-1]))] * len(teachers)
        known = torch.tensor(
            [[i != UNKNOWN for i in index] for index in indices]
        )
        maps = [take_classes(x, i) for x, i in zip(teachers, indices)]
        return maps, known.to(student.device)

    def _mean_kl(self, s: Tensor, t: Tensor, kept: Tensor) -> Tensor:
        kl = functional.bernoulli_kl(s, t, self.temperature)
        # Multiply, not index: the mask's size would make the host wait.
        mask = kept.to(kl.dtype)
        weights = functional.foreground_weight(
            t.detach().sigmoid() * mask, self.foreground_gamma
        )
        return functional.weighted_mean((kl * mask).sum(-1), weights)

    @torch.no_grad()
    def _log(
        self, student: Tensor, maps: list[Tensor], known: Tensor, shares: Any
    ) -> None:
        self.shares = dict(zip(self.teachers, shares))
        self.parts = {
            name: self._mean_kl(student, x, kept) * self.loss_weight
            for name, x, kept in zip(self.teachers, maps, known)
        }


@MODELS.register_module()
class LogitKDHead(ClassKDHead):
    """Distils class logits of dense heads with the same anchors.

    Sigmoid heads: see :class:`ClassKDHead`. Softmax heads: KL divergence with
    temperature (Hinton et al., 2015), one teacher, the same classes.

    Args:
        output_index (int): Which of the head's outputs holds class logits,
            a list of (N, A * K, H, W), one a level.
        **kwargs: Of :class:`ClassKDHead`.
    """

    def __init__(self, output_index: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_index = output_index
        self.use_sigmoid = True

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        head = student.get_submodule(self.student_tap)
        other = teacher.model.get_submodule(self.teacher_tap)
        mine, theirs = head_facts(head), head_facts(other)
        self.use_sigmoid = mine.use_sigmoid
        same_anchors = anchors_per_level(head) == anchors_per_level(other)
        if mine.use_sigmoid != theirs.use_sigmoid or not same_anchors:
            raise ValueError(
                "LogitKDHead needs heads of one kind; expected the student's "
                f'{mine} and anchors {anchors_per_level(head)}, got {theirs} '
                f'and {anchors_per_level(other)} from teacher '
                f'{teacher.name!r}. Use a ScoreKDHead, which needs neither.'
            )
        if not self.use_sigmoid and self.fusion is not None:
            raise ValueError(
                'LogitKDHead fuses sigmoid heads, the student has a '
                f'{mine}; expected one head a teacher, or a ScoreKDHead.'
            )

    def map_classes(self, indices: list[list[int]]) -> None:
        first = indices[0]
        if not self.use_sigmoid and UNKNOWN in first:
            raise ValueError(
                'a softmax over other classes says nothing about these: '
                f'teacher {self.teachers[0]!r} lacks {first.count(UNKNOWN)} '
                "of the student's classes, expected all. Use a ScoreKDHead."
            )
        if not self.use_sigmoid:  # the background stays last
            indices = [[*first, len(first)]]
        super().map_classes(indices)

    def compute(self, student: Tapped, teachers: Sequence[Tapped]) -> Tensor:
        mine = self._levels(student, 'student')
        theirs = [
            self._levels(tapped, f'teacher {name!r}')
            for name, tapped in zip(self.teachers, teachers)
        ]
        for name, levels in zip(self.teachers, theirs):
            check_same_levels(mine, levels, name)
        k = head_facts(student.module).num_classes
        flat = [_flat_pairs(mine, x, k, t) for x, t in zip(theirs, teachers)]
        s = flat[0][0]
        if self.use_sigmoid:
            return self.distil(s, [pair[1] for pair in flat])
        t = flat[0][1]
        if self.class_indices is not None:
            t = take_classes(t, self.class_indices[0])
        weights = functional.foreground_weight(
            t.softmax(-1)[..., :-1],  # mmdet: background is last
            self.foreground_gamma,
        )
        kl = functional.categorical_kl(s, t, self.temperature)
        return functional.weighted_mean(kl, weights)

    def _levels(self, tapped: Tapped, owner: str) -> list[Tensor]:
        output, index = tapped.output, self.output_index
        if not isinstance(output, Sequence) or not (
            -len(output) <= index < len(output)
        ):
            count = len(output) if isinstance(output, Sequence) else 1
            raise ValueError(
                f'output_index={index} is out of range: the head '
                f'of the {owner} has {count} output(s), expected an index '
                f'from 0 to {count - 1}.'
            )
        levels = as_list(output[index])
        facts = head_facts(tapped.module)
        anchors = anchors_per_level(tapped.module)
        check_logits(levels, facts.num_classes, anchors, index)
        return levels


def _flat_pairs(
    mine: list[Tensor], theirs: list[Tensor], k: int, teacher: Tapped
) -> tuple[Tensor, Tensor]:
    """Both sides' logits, (N, L, K) and (N, L, K_t)."""
    k_t = head_facts(teacher.module).num_classes
    pairs = [crop_to_common(s, t) for s, t in zip(mine, theirs)]
    return (
        torch.cat(
            [functional.flatten_anchors(s, k) for s, _ in pairs], 1
        ).float(),
        torch.cat(
            [functional.flatten_anchors(t, k_t) for _, t in pairs], 1
        ).float(),
    )


@MODELS.register_module()
class ScoreKDHead(ClassKDHead):
    """Distils class-score maps between dense heads of any kinds.

    A location's score for a class is the largest over its anchors, times
    objectness, centerness or IoU where the head predicts one. Levels are
    matched by stride; those that one side lacks get no signal.
    """

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        mine = head_strides(student.get_submodule(self.student_tap))
        theirs = head_strides(teacher.model.get_submodule(self.teacher_tap))
        common_strides(mine, theirs, teacher.name)

    def compute(self, student: Tapped, teachers: Sequence[Tapped]) -> Tensor:
        shared = set(head_strides(student.module))
        for tapped in teachers:
            shared &= set(head_strides(tapped.module))
        strides = sorted(shared)
        if not strides:
            raise ValueError(
                f'teachers {self.teachers} and the student share no stride; '
                'expected one at least. Give each teacher a ScoreKDHead of '
                'its own.'
            )
        mine = _score_maps(student, strides)
        theirs = [_score_maps(tapped, strides) for tapped in teachers]
        everyone = [mine, *theirs]
        flat = []
        for maps in everyone:
            cut = [
                _cut(x, [m[i] for m in everyone]) for i, x in enumerate(maps)
            ]
            flat.append(
                torch.cat([x.flatten(2).transpose(1, 2) for x in cut], 1)
            )
        return self.distil(flat[0], flat[1:])


def _score_maps(tapped: Tapped, strides: list[int]) -> list[Tensor]:
    maps = score_logits(tapped.module, tapped.output)
    return pick_strides(maps, head_strides(tapped.module), strides)


def _cut(x: Tensor, others: list[Tensor]) -> Tensor:
    for other in others:
        x, _ = crop_to_common(x, other)
    return x
