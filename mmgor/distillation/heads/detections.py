"""KD head for final detections, which every detector gives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmgor.distillation.fusion.boxes import weighted_boxes_fusion
from mmgor.distillation.recorder import DETECTIONS, Recorded
from mmgor.distillation.teachers.class_mapping import (
    UNKNOWN,
    to_student_labels,
)
from mmgor.distillation.teachers.teacher import Teacher
from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .base import BaseKDHead

#: Of a box, in pixels.
MIN_SIDE = 1


class Found(NamedTuple):
    """Detections in the student's classes.

    Attributes:
        boxes (Tensor): Shape (n, 4), float32.
        scores (Tensor): Shape (n, ), float32.
        labels (Tensor): Shape (n, ).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def systematic_draw(scores: Tensor, start: Tensor) -> Tensor:
    """Draw each entry with a probability equal to its score.

    Systematic sampling (Madow, Ann. Math. Stat. 1949): entry i is drawn where
    the running sum of scores, begun at ``start``, crosses an integer. So the
    number drawn is the sum of the scores, rounded up or down.

    Args:
        scores (Tensor): In [0, 1], shape (n, ).
        start (Tensor): Uniform in [0, 1), a scalar.

    Returns:
        Tensor: Whether drawn, bool, shape (n, ).
    """
    # Doubles: the step over a score of 1 has to cross an integer.
    sums = torch.cat([start.view(1), scores]).double().cumsum(0).floor()
    return sums[1:] > sums[:-1]


@MODELS.register_module()
class DetectionKDHead(BaseKDHead):
    """Distils final detections through the student's own assigner and losses.

    Works for teachers of every kind, two-stage and DETR too. Each detection
    becomes a box to learn with a probability equal to its score, drawn anew
    in every step: the expected target of a matched location is the score,
    and a loss that is linear in its target has the soft label's gradient in
    the mean, up to the head's normaliser, which counts the locations matched.
    (Hard labels above a threshold would need one, and would throw away what
    the teacher is unsure of.) This loss does not vanish where student and
    teacher agree.

    The number drawn in a batch is the sum of its scores, rounded up or down
    (:func:`systematic_draw`), which keeps the normaliser steady.
    Where that sum is below 1 it is not: a step that draws the box divides by
    its n locations, one that does not by 1, so that a single box of score p
    acts like a target of p / (p + n (1 - p)).

    Boxes of classes that no teacher knows are the batch's own labels: without
    any, the loss would teach that these classes are absent. Boxes below one
    pixel are left out, as mmdet's data sets do.

    Args:
        min_score (float): Detections below are left out.
        iou_threshold (float): Several teachers: boxes that overlap more are
            fused (weighted boxes fusion; Solovyev et al., 2021).
        **kwargs: Of :class:`BaseKDHead`.

    Raises:
        ValueError: If an argument is out of range.
    """

    fuses = True
    reads_classes = True
    reads_detections = True

    def __init__(
        self,
        min_score: float = 0.05,
        iou_threshold: float = 0.55,
        student_tap: str = 'bbox_head',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, DETECTIONS, **kwargs)
        self.min_score = number('min_score', min_score, '[0, 1)')
        self.iou_threshold = number('iou_threshold', iou_threshold, '(0, 1)')

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        head = student.get_submodule(self.student_tap)
        if not isinstance(head, BaseDenseHead):
            raise ValueError(
                'DetectionKDHead needs a dense student head, whose '
                'loss_by_feat assigns boxes to locations, got '
                f'{type(head).__name__}. Set student_tap to one, or use a '
                'FeatureKDHead.'
            )

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        head: Any = student.module
        answers = [recorded.output for recorded in teachers]
        scores = answers[0][0].scores
        part = scores.new_full((), 1 / len(teachers))
        self.shares = dict.fromkeys(self.teachers, part)
        indices = self.class_tensors(
            scores.device, head.num_classes, [None] * len(teachers)
        )
        found, sizes = self._found(answers, indices)
        start = torch.rand((), device=scores.device)
        drawn = systematic_draw(found.scores, start)
        known = torch.stack([index != UNKNOWN for index in indices]).any(0)
        truth = [sample.gt_instances for sample in student.data_samples]
        labels = torch.cat([x.labels for x in truth])
        # May be HorizontalBoxes.
        labelled = torch.cat([get_box_tensor(x.bboxes) for x in truth])
        boxes = _pick(
            torch.cat([found.boxes, labelled]),
            torch.cat([found.labels, labels]),
            torch.cat([drawn, ~known[labels]]),
            [*sizes, *map(len, truth)],
        )
        metas = [sample.metainfo for sample in student.data_samples]
        outputs = student.output
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        losses = head.loss_by_feat(*outputs, boxes, metas, None)
        terms: list[Tensor] = []
        for name, value in losses.items():
            if 'loss' in name:
                terms += [value] if isinstance(value, Tensor) else value
        return torch.stack([term.mean() for term in terms]).sum()

    def _found(
        self,
        answers: Sequence[Sequence[InstanceData]],
        indices: Sequence[Tensor],
    ) -> tuple[Found, list[int]]:
        """All pictures' detections in a row, and how many each has.

        Args:
            answers (Sequence[Sequence[InstanceData]]): One a teacher, of as
                many pictures each.
            indices (Sequence[Tensor]): One a teacher, see
                :meth:`class_tensors`.
        """
        every = [
            self._in_student_classes(InstanceData.cat(list(answer)), index)
            for answer, index in zip(answers, indices)
        ]
        sizes = [[len(picture) for picture in answer] for answer in answers]
        if len(every) == 1:
            return every[0], sizes[0]
        return self._fused(every, sizes)

    def _in_student_classes(self, found: InstanceData, index: Tensor) -> Found:
        """Those that are left out have a score of 0, and are never drawn: to
        drop them would make the host wait."""
        labels, known = to_student_labels(found.labels, index)
        sides = found.bboxes[:, 2:] - found.bboxes[:, :2]
        # A box without area has no finite regression target.
        kept = known & (sides >= MIN_SIDE).all(1)
        kept &= found.scores >= self.min_score
        scores = torch.where(kept, found.scores.float(), 0.0)
        return Found(found.bboxes.float(), scores, labels)

    def _fused(
        self, every: list[Found], sizes: list[list[int]]
    ) -> tuple[Found, list[int]]:
        """Several teachers' detections as one set a picture. One copy to the
        CPU and one back serve the batch."""
        tables = [
            torch.cat([found.boxes, torch.stack(found[1:], 1)], 1)
            for found in every
        ]
        rows = torch.cat(tables).cpu().split([len(table) for table in tables])
        known = torch.tensor(self.class_indices) != UNKNOWN
        fused = []
        for picture in zip(*(x.split(n) for x, n in zip(rows, sizes))):
            kept = [x[x[:, 4] > 0] for x in picture]
            boxes, scores, labels = weighted_boxes_fusion(
                [x[:, :4] for x in kept],
                [x[:, 4] for x in kept],
                [x[:, 5].long() for x in kept],
                known,
                self.iou_threshold,
            )
            pair = torch.stack([scores, labels.to(scores)], 1)
            fused.append(torch.cat([boxes, pair], 1))
        table = torch.cat(fused).to(tables[0].device, non_blocking=True)
        found = Found(table[:, :4], table[:, 4], table[:, 5].long())
        return found, [len(x) for x in fused]


def _pick(
    boxes: Tensor, labels: Tensor, kept: Tensor, sizes: list[int]
) -> list[InstanceData]:
    """Boxes to learn of each picture. The host waits once.

    Args:
        boxes (Tensor): What teachers found, picture by picture, then what is
            labelled, shape (n, 4).
        labels (Tensor): Shape (n, ).
        kept (Tensor): Bool, shape (n, ).
        sizes (list[int]): How many the N pictures have, found, then labelled:
            2 N numbers.
    """
    places = torch.arange(len(kept))
    picked = [
        part[mask]
        for part, mask in zip(places.split(sizes), kept.cpu().split(sizes))
    ]
    half = len(sizes) // 2
    each = [torch.cat(pair) for pair in zip(picked[:half], picked[half:])]
    index = torch.cat(each).to(boxes.device, non_blocking=True)
    counts = [len(x) for x in each]
    return [
        InstanceData(bboxes=b, labels=c)
        for b, c in zip(
            boxes[index].split(counts), labels[index].split(counts)
        )
    ]
