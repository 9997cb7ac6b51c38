"""KD head for class scores of two dense heads of any kinds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgor.dense_heads.levels import (
    common_strides,
    crop_to_common,
    log_shared_strides,
    pick_strides,
)
from mmgor.dense_heads.scores import score_logits
from mmgor.dense_heads.spec import head_strides
from mmgor.distillation.recorder import Recorded
from mmgor.distillation.teachers.teacher import Teacher
from mmgor.registry import MODELS

from .class_base import ClassKDHead


@MODELS.register_module()
class ScoreKDHead(ClassKDHead):
    """Distils class-score maps between dense heads of any kinds.

    A location's score for a class is the largest over its anchors, times
    objectness, centerness or IoU where the head predicts one. Levels are
    matched by stride. A level that the student or one of the teachers does
    not have gets no KD signal.

    Locations are matched by their index. Families of heads differ by half a
    cell there: the first location of stride s is at (s / 2, s / 2) in FCOS,
    CenterNetUpdate, SSD and YOLOv3, but at (0, 0) in RetinaNet, ATSS, GFL,
    RTMDet and the like. YOLOX predicts boxes from (0, 0) on, but its scores
    belong to (s / 2, s / 2), to which it assigns objects. Between the two
    groups, matched locations are s / 2 pixels apart in x and y.
    """

    def bind(self, student: nn.Module, teachers: Sequence[Teacher]) -> None:
        super().bind(student, teachers)
        self._bound = False
        mine = head_strides(student.get_submodule(self.student_tap))
        shared = mine
        for teacher in teachers:
            theirs = teacher.model.get_submodule(self.teacher_tap)
            shared = common_strides(shared, head_strides(theirs), teacher.name)
        names = ', '.join(repr(teacher.name) for teacher in teachers)
        log_shared_strides('ScoreKDHead', mine, shared, names)
        self._bound = True

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        everyone = [student, *teachers]
        shared = set(head_strides(student.module))
        for recorded in teachers:
            shared &= set(head_strides(recorded.module))
        strides = sorted(shared)
        maps = [_score_maps(recorded, strides) for recorded in everyone]
        sizes = [recorded.size for recorded in everyone]
        cropped = [
            crop_to_common(level, sizes, stride, self.teachers)
            for stride, level in zip(strides, zip(*maps))
        ]
        mine, *theirs = (
            torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1)
            for levels in zip(*cropped)
        )
        return self.distil(mine, theirs)


def _score_maps(recorded: Recorded, strides: list[int]) -> list[Tensor]:
    maps = score_logits(recorded.module, recorded.output)
    return pick_strides(maps, head_strides(recorded.module), strides)
