"""The base class of all KD heads: taps, teachers, classes."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from mmgor.distillation.recorder import DETECTIONS, Recorded, check_tap
from mmgor.distillation.teachers.class_mapping import check_class_index
from mmgor.distillation.teachers.teacher import Teacher
from mmgor.io.config_values import number, text


class BaseKDHead(nn.Module):
    """Turns the recorded outputs of student and teachers into one loss.

    A subclass implements :meth:`compute`.

    Args:
        student_tap (str): Module path in the student.
        teacher_tap (str): Module path in the teachers, or 'detections'.
        teacher (str | list[str], optional): Name of the teacher, or names of
            several teachers whose outputs are fused. May be left out if
            there is only one teacher.
        loss_weight (float): Factor of this head's loss, > 0.

    Attributes:
        teachers (list[str]): Names of the teachers.
        shares (dict[str, Tensor]): Teacher -> its share of the fused target
            in the last call, the mean over all locations. For the log.
        teacher_losses (dict[str, Tensor]): Teacher -> the loss against this
            teacher alone in the last call, detached. For the log.

    Raises:
        ValueError: If an argument is out of range, or the head cannot read
            ``teacher_tap``.
    """

    #: Whether the head can learn from several teachers at once.
    fuses = False
    #: Whether the head compares classes, which are then mapped by name.
    reads_classes = False
    #: Whether the teacher's tap is 'detections', not a module.
    reads_detections = False

    def __init__(
        self,
        student_tap: str,
        teacher_tap: str,
        teacher: str | Sequence[str] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.loss_weight = number(
            'loss_weight',
            loss_weight,
            '(0, inf)',
            'to drop a KD head, remove it from kd_heads',
        )
        self.student_tap = text('student_tap', student_tap, 'bbox_head')
        self.teacher_tap = text('teacher_tap', teacher_tap, 'bbox_head')
        if teacher_tap == DETECTIONS and not self.reads_detections:
            raise ValueError(
                f"{type(self).__name__} reads a module's output, not "
                f'teacher_tap={DETECTIONS!r}; expected a module path in the '
                "teacher, such as 'bbox_head', or 'neck' for features. Only "
                'a DetectionKDHead reads detections.'
            )
        self.teachers = _names(teacher)
        if len(self.teachers) > 1 and not self.fuses:
            raise ValueError(
                f'{type(self).__name__} learns from one teacher, got '
                f'{self.teachers}; expected one such head per teacher.'
            )
        self.class_indices: list[list[int]] | None = None
        self._class_tensors: dict[torch.device, list[Tensor]] = {}
        self.shares: dict[str, Tensor] = {}
        self.teacher_losses: dict[str, Tensor] = {}
        self._bound = False

    def bind(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        """Check both taps and read what the head needs, once.

        Args:
            student (nn.Module): The student detector.
            teachers (Sequence[Teacher]): Built, in the order of
                ``teachers``.

        Raises:
            ValueError: If a tap does not exist or the two do not fit.
        """
        self._check_side(student, self.student_tap, 'student')
        for teacher in teachers:
            owner = f'teacher {teacher.name!r}'
            if self.teacher_tap != DETECTIONS:
                self._check_side(teacher.model, self.teacher_tap, owner)
            self.check_pair(student, teacher)
        self._bound = True

    def _check_side(self, model: nn.Module, tap: str, owner: str) -> None:
        check_tap(model, tap, owner)
        if self.reads_classes and isinstance(
            model.get_submodule(tap), RPNHead
        ):
            raise ValueError(
                f'{type(self).__name__} reads classes; expected a head that '
                f'predicts some, got the RPNHead {tap!r} of the {owner}. Tap '
                'another head, or use a FeatureKDHead.'
            )

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        """Check what the subclass requires of the two models.

        Args:
            student (nn.Module): The student detector.
            teacher (Teacher): Built.

        Raises:
            ValueError: If the two do not fit.
        """

    def map_classes(self, indices: list[list[int]]) -> None:
        """Store at which index each teacher has the student's classes.

        Args:
            indices (list[list[int]]): One list per teacher, see
                :func:`.class_index`.

        Raises:
            ValueError: If the head cannot work with these.
        """
        self.class_indices = indices
        self._class_tensors.clear()

    def class_tensors(
        self,
        device: torch.device,
        num_classes: int,
        teacher_classes: Sequence[int | None],
    ) -> list[Tensor]:
        """The class indices as tensors of shape (K, ), one per teacher.

        Args:
            device (torch.device): Device of the tensors. They are copied to
                it once and kept.
            num_classes (int): K, the number of the student's class outputs.
            teacher_classes (Sequence[int | None]): The same number for each
                teacher; None where no head of the teacher is recorded.

        Raises:
            RuntimeError: If :meth:`map_classes` was never called.
            ValueError: If the recorded heads have other numbers of classes.
        """
        if device not in self._class_tensors:
            if self.class_indices is None:
                raise RuntimeError(
                    "the teachers' classes were not mapped by name; expected "
                    "custom_hooks=[dict(type='GoRWeightHook')], which does "
                    'it, or, without a Runner, model.map_classes(<names>).'
                )
            for index, outputs, name in zip(
                self.class_indices, teacher_classes, self.teachers
            ):
                check_class_index(index, num_classes, outputs, name)
            self._class_tensors[device] = [
                torch.tensor(index, device=device)
                for index in self.class_indices
            ]
        return self._class_tensors[device]

    def forward(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            student (Recorded): Output behind the student's tap.
            teachers (Sequence[Recorded]): Outputs behind each teacher's tap,
                without gradient.

        Raises:
            RuntimeError: If :meth:`bind` was never called.
        """
        if not self._bound:
            raise RuntimeError(
                f'{type(self).__name__} was not bound to its teacher; '
                'expected model.init_weights() before training.'
            )
        return self.compute(student, teachers) * self.loss_weight

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        """The loss without ``loss_weight``, a scalar."""
        raise NotImplementedError


def _names(teacher: Any) -> list[str]:
    names = [teacher] if isinstance(teacher, str) else teacher
    names = [] if names is None else names
    sound = isinstance(names, (list, tuple)) and all(
        isinstance(name, str) for name in names
    )
    if not sound or len(set(names)) < len(names) or teacher in ([], ()):
        raise ValueError(
            f'teacher={teacher!r}; expected a name or a list of different '
            "names, e.g. teacher=['r50', 'gfl']."
        )
    return list(names)
