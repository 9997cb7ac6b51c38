"""KD head for the boxes of two dense heads."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor, nn

from mmgor.dense_heads.boxes import distribution_logits, location_boxes
from mmgor.dense_heads.levels import (
    as_list,
    common_strides,
    crop_to_common,
    log_shared_strides,
    pick_strides,
)
from mmgor.dense_heads.scores import score_logits
from mmgor.dense_heads.spec import head_spec, head_strides
from mmgor.distillation.losses.class_kl import categorical_kl
from mmgor.distillation.losses.location_weights import weighted_mean
from mmgor.distillation.recorder import Recorded
from mmgor.distillation.teachers.class_mapping import UNKNOWN
from mmgor.distillation.teachers.teacher import Teacher
from mmgor.io.config_values import choice, number
from mmgor.registry import MODELS

from .base import BaseKDHead

FORMS = ('iou', 'ld')


@MODELS.register_module()
class BoxKDHead(BaseKDHead):
    """Distils boxes between dense heads.

    The loss is sum(w d) / sum(w) over the images and over the locations of
    the levels whose stride both sides have. Forms of the distance d between
    student s and teacher t at a location:

    - ``iou``: 1 - GIoU(s, t) (Rezatofighi et al., CVPR 2019) of the decoded
      boxes of each side's best anchor, maps of shape (N, 4, H, W). It works
      for any two dense heads.
    - ``ld``: localization distillation (Zheng et al., "Localization
      Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252),
      T^2 mean_e KL(softmax(t_e / T) || softmax(s_e / T)) over the edges e
      (left, top, right and bottom, of each anchor). t_e and s_e are the
      logits of an edge's distance from the location, 0 ... ``reg_max``
      strides, maps of shape (N, A * 4, reg_max + 1, H, W). It needs
      GFL-type heads with the same ``reg_max``.

    The weight is w = p^gamma, where p is the teacher's largest score among
    the classes that the student has, too, since background has no box. It
    takes the place of the regions that the LD paper selects.

    Args:
        form (str): 'iou' or 'ld', see above.
        temperature (float): T, for ``ld`` only; the paper uses 10.
        foreground_gamma (float): gamma; 0 weighs all locations the same.
        **kwargs: Arguments of :class:`BaseKDHead`.

    Raises:
        ValueError: If an argument is out of range.
    """

    reads_classes = True

    def __init__(
        self,
        form: str = 'iou',
        temperature: float = 10.0,
        foreground_gamma: float = 1.0,
        student_tap: str = 'bbox_head',
        teacher_tap: str = 'bbox_head',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, teacher_tap, **kwargs)
        self.form = choice('form', form, FORMS)
        self.temperature = number('temperature', temperature, '(0, inf)')
        self.foreground_gamma = number(
            'foreground_gamma', foreground_gamma, '[0, inf)'
        )

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        mine: Any = student.get_submodule(self.student_tap)
        theirs: Any = teacher.model.get_submodule(self.teacher_tap)
        strides = head_strides(mine)
        shared = common_strides(strides, head_strides(theirs), teacher.name)
        log_shared_strides('BoxKDHead', strides, shared, repr(teacher.name))
        bins = [getattr(head, 'reg_max', None) for head in (mine, theirs)]
        if self.form == 'ld' and (bins[0] is None or bins[0] != bins[1]):
            raise ValueError(
                "BoxKDHead(form='ld') compares box distributions; expected "
                f'the same reg_max on both sides, got {bins[0]} in the '
                f'student ({type(mine).__name__}) and {bins[1]} in teacher '
                f"{teacher.name!r} ({type(theirs).__name__}). Set form='iou'."
            )

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        teacher = teachers[0]
        strides = common_strides(
            head_strides(student.module),
            head_strides(teacher.module),
            self.teachers[0],
        )
        known, theirs_known = self._known_classes(student, teacher)
        if self.form == 'ld':
            mine, theirs = _edges(student), _edges(teacher)
        else:
            mine = _boxes(student, known)
            theirs = _boxes(teacher, theirs_known)
        scores = [
            (x.sigmoid() * theirs_known[:, None, None]).amax(1)
            for x in score_logits(teacher.module, teacher.output)
        ]
        mine = pick_strides(mine, head_strides(student.module), strides)
        theirs, scores = (
            pick_strides(x, head_strides(teacher.module), strides)
            for x in (theirs, scores)
        )
        losses, weights = [], []
        sizes = [student.size, teacher.size, teacher.size]
        for stride, *maps in zip(strides, mine, theirs, scores):
            s, t, w = crop_to_common(maps, sizes, stride, 2 * self.teachers)
            losses.append(self._distance(s, t).flatten(1))
            weights.append(w.flatten(1) ** self.foreground_gamma)
        return weighted_mean(torch.cat(losses, 1), torch.cat(weights, 1))

    def _known_classes(
        self, student: Recorded, teacher: Recorded
    ) -> tuple[Tensor, Tensor]:
        """Which classes both sides know, as a mask for each side."""
        counts = [head_spec(t.module, True) for t in (student, teacher)]
        k, k_t = (spec.num_classes - (not spec.use_sigmoid) for spec in counts)
        device = as_list(student.output[0])[0].device
        index = self.class_tensors(device, k, [k_t])[0]
        known = index != UNKNOWN
        # Unknown classes mark one extra entry, which is cut off.
        marks = known.new_zeros(k_t + 1)
        marks[torch.where(known, index, k_t)] = True
        return known, marks[:k_t]

    def _distance(self, s: Tensor, t: Tensor) -> Tensor:
        """Distances (N, H, W) of boxes (N, 4, H, W) or of distributions
        (N, A * 4, bins, H, W)."""
        if self.form == 'iou':
            boxes = [x.movedim(1, -1) for x in (s, t)]
            return 1 - bbox_overlaps(*boxes, mode='giou', is_aligned=True)
        kl = categorical_kl(
            s.movedim(2, -1), t.movedim(2, -1), self.temperature
        )
        return kl.mean(1)


def _boxes(recorded: Recorded, classes: Tensor) -> list[Tensor]:
    module = recorded.module
    return location_boxes(module, recorded.output, module.training, classes)


def _edges(recorded: Recorded) -> list[Tensor]:
    return distribution_logits(recorded.module, recorded.output)
