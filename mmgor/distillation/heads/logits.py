"""KD head for class logits of two heads with the same anchors."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import YOLOV3Head
from torch import Tensor, nn

from mmgor.dense_heads.levels import as_list, crop_to_common
from mmgor.dense_heads.scores import has_score_factor
from mmgor.dense_heads.spec import (
    anchors_per_level,
    describe_priors,
    head_spec,
    head_strides,
    same_priors,
)
from mmgor.distillation.losses.location_weights import weighted_mean
from mmgor.distillation.recorder import Recorded
from mmgor.distillation.teachers.class_mapping import UNKNOWN, take_classes
from mmgor.distillation.teachers.teacher import Teacher
from mmgor.io.config_values import integer
from mmgor.registry import MODELS

from .class_base import ClassKDHead


def flatten_anchors(x: Tensor, num_classes: int) -> Tensor:
    """(N, A * K, H, W) head output to (N, H * W * A, K), mmdet's order."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, num_classes)


@MODELS.register_module()
class LogitKDHead(ClassKDHead):
    """Distils class logits of dense heads with the same anchors.

    For sigmoid heads see :class:`ClassKDHead`. Softmax heads get the same
    losses on the softmax; they take one teacher, which must have the same
    classes.

    Objectness, centerness or IoU beside the classes is neither distilled nor
    part of a location's weight (YOLOX-nano learned less with it there, see
    docs/results/yolox_nano.md).

    Args:
        output_index (int): Which of the head's outputs holds class logits:
            a list with one (N, A * K, H, W) per level.
        **kwargs: Arguments of :class:`ClassKDHead`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, output_index: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_index = integer('output_index', output_index)
        self.use_sigmoid = True

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        head = student.get_submodule(self.student_tap)
        other = teacher.model.get_submodule(self.teacher_tap)
        if isinstance(head, YOLOV3Head) or isinstance(other, YOLOV3Head):
            raise ValueError(
                'LogitKDHead expected heads with an output for class logits '
                f'alone, got {type(head).__name__} in the student and '
                f'{type(other).__name__} in teacher {teacher.name!r} (YOLOv3 '
                'has one output for boxes, objectness and classes). Use a '
                'ScoreKDHead.'
            )
        mine, theirs = head_spec(head), head_spec(other)
        self.use_sigmoid = mine.use_sigmoid
        same_kind = mine.use_sigmoid == theirs.use_sigmoid
        if not same_kind or not same_priors(head, other):
            raise ValueError(
                'LogitKDHead needs heads of one kind with the same priors; '
                f"expected the student's {mine}, {describe_priors(head)}, got "
                f'from teacher {teacher.name!r} a {theirs}, '
                f'{describe_priors(other)}. Use a ScoreKDHead, which needs '
                'neither.'
            )
        if not self.use_sigmoid and mine.num_classes != theirs.num_classes:
            raise ValueError(
                'softmax outputs depend on the number of classes: expected '
                f'a {mine} in teacher {teacher.name!r}, too, got a {theirs}. '
                'Use a ScoreKDHead.'
            )
        if not self.use_sigmoid and self.fusion is not None:
            raise ValueError(
                'LogitKDHead fuses sigmoid heads only, but the student has a '
                f'{mine}; expected one KD head per teacher, or a ScoreKDHead.'
            )

    def map_classes(self, indices: list[list[int]]) -> None:
        first = indices[0]
        if not self.use_sigmoid and UNKNOWN in first:
            raise ValueError(
                'softmax outputs depend on all classes: teacher '
                f'{self.teachers[0]!r} lacks {first.count(UNKNOWN)} of the '
                "student's classes, expected all. Use a ScoreKDHead."
            )
        if not self.use_sigmoid:  # the background stays last
            indices = [[*first, len(first)]]
        super().map_classes(indices)

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        mine = self._levels(student, 'student')
        theirs = [
            self._levels(recorded, f'teacher {name!r}')
            for name, recorded in zip(self.teachers, teachers)
        ]
        for name, levels in zip(self.teachers, theirs):
            check_same_levels(mine, levels, name)
        if self.use_sigmoid:
            self._check_factors(student, teachers)
        sizes = [recorded.size for recorded in (student, *teachers)]
        strides = head_strides(student.module)
        cropped = [
            crop_to_common(level, sizes, stride, self.teachers)
            for stride, level in zip(strides, zip(mine, *theirs))
        ]
        s, *flat = (
            _flat(levels, recorded)
            for levels, recorded in zip(zip(*cropped), [student, *teachers])
        )
        if self.use_sigmoid:
            return self.distil(s, flat)
        count = s.shape[-1]
        t = take_classes(
            flat[0], self.class_tensors(s.device, count, [count])[0]
        )
        scores = t.softmax(-1)[..., :-1]  # mmdet: background is last
        kl = self.loss.categorical(s, t, self.temperature)
        return weighted_mean(kl, self._weights(scores))

    def _check_factors(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> None:
        mine = has_score_factor(student.module, student.output)
        for name, recorded in zip(self.teachers, teachers):
            theirs = has_score_factor(recorded.module, recorded.output)
            if mine != theirs:
                raise ValueError(
                    'class logits are only a part of the scores of a head '
                    'with objectness, centerness or IoU; expected such an '
                    f'output in both heads or in none, got {mine} in the '
                    'student '
                    f'({type(student.module).__name__}) and {theirs} in '
                    f'teacher {name!r} ({type(recorded.module).__name__}). '
                    'Use a ScoreKDHead.'
                )

    def _levels(self, recorded: Recorded, owner: str) -> list[Tensor]:
        output, index = recorded.output, self.output_index
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
        spec = head_spec(recorded.module)
        anchors = anchors_per_level(recorded.module)
        check_logits(levels, spec.num_classes, anchors, index)
        return levels


def _flat(levels: Sequence[Tensor], recorded: Recorded) -> Tensor:
    """Logits of all levels, shape (N, L, K)."""
    k = head_spec(recorded.module).num_classes
    parts = [flatten_anchors(x, k) for x in levels]
    return torch.cat(parts, 1).float()


def check_logits(
    levels: Sequence[Tensor],
    num_classes: int,
    anchors: Sequence[int] | None,
    output_index: int,
) -> None:
    """Make sure that a head's output holds class logits.

    Box deltas often have a multiple of K channels, too, and would be taken
    for logits silently.

    Args:
        levels (Sequence[Tensor]): One per level, shape (N, A * K, H, W).
        num_classes (int): K.
        anchors (Sequence[int], optional): A of each level, if known.
        output_index (int): Which output this is, for the message.

    Raises:
        ValueError: If the channels do not fit.
    """
    for level, x in enumerate(levels):
        channels = x.shape[1]
        if anchors is None or level >= len(anchors):
            fits = channels % num_classes == 0
            expected = f'a multiple of {num_classes} classes'
        else:
            fits = channels == anchors[level] * num_classes
            expected = f'{anchors[level]} anchors x {num_classes} classes'
        if not fits:
            raise ValueError(
                f'output_index={output_index} holds no class logits: level '
                f'{level} has {channels} channels, expected {expected}. Most '
                'mmdet heads give class logits first, output_index=0; where '
                'this one does not, use a ScoreKDHead.'
            )


def check_same_levels(
    student: Sequence[Tensor], teacher: Sequence[Tensor], teacher_name: str
) -> None:
    """Make sure that student and teacher have the same number of levels.

    Args:
        student (Sequence[Tensor]): One per level.
        teacher (Sequence[Tensor]): One per level.
        teacher_name (str): For the message.

    Raises:
        ValueError: If the number of levels differs.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"the student's head has {len(student)} levels, that of teacher "
            f'{teacher_name!r} {len(teacher)}; logit KD needs the same '
            'pyramid. Use a ScoreKDHead, which matches levels by stride.'
        )
