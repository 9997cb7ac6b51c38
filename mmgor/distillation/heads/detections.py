"""KD head for final detections, which every detector has."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmgor.dense_heads.mmyolo_heads import is_mmyolo_head
from mmgor.distillation.batch_samples import as_table
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

#: Boxes with a shorter side are left out; in pixels.
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

    Systematic sampling (Madow, Ann. Math. Stat. 1949): entry i is drawn if
    the running sum of scores, which begins at ``start``, crosses an integer
    there. So the number of entries drawn is the sum of the scores, rounded up
    or down.

    Args:
        scores (Tensor): In [0, 1], shape (n, ).
        start (Tensor): A scalar, uniform in [0, 1).

    Returns:
        Tensor: True for entries that are drawn, shape (n, ).
    """
    # float64, so that a score of 1 always crosses an integer.
    sums = torch.cat([start.view(1), scores]).double().cumsum(0).floor()
    return sums[1:] > sums[:-1]


@MODELS.register_module()
class DetectionKDHead(BaseKDHead):
    """Distils final detections through the student's own assigner and losses.

    It works for teachers of every kind, including two-stage detectors and
    DETR. In every step each detection becomes a target box with a probability
    equal to its score. So the expected target of a matched location is the
    score. A loss that is linear in its target then has, on average, the
    gradient of the soft label, up to the head's normaliser, which counts the
    matched locations. (Hard labels would need a score threshold, and would
    discard what the teacher is unsure of.) This loss does not vanish where
    student and teacher agree.

    The number of boxes drawn in a batch is the sum of their scores, rounded
    up or down (:func:`systematic_draw`), which keeps the normaliser steady.
    It is not steady where that sum is below 1: a step that draws the box
    divides by its n locations, and one that does not divides by 1. A single
    box of score p then acts like a target of p / (p + n (1 - p)).

    For classes that no teacher knows, the batch's own ground truth is used:
    without it, the loss would teach that these classes are absent. Boxes with
    a side below one pixel are left out, as in mmdet's data sets.

    Args:
        min_score (float): Detections with a lower score are left out.
        iou_threshold (float): With several teachers, boxes whose IoU is
            larger are fused (weighted boxes fusion; Solovyev et al., 2021).
        **kwargs: Arguments of :class:`BaseKDHead`.

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
        # The one form that all heads of MMYOLO take.
        targets = as_table(boxes) if is_mmyolo_head(head) else boxes
        losses = head.loss_by_feat(*outputs, targets, metas, None)
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
        """The detections of all images in a row, and how many each has.

        Args:
            answers (Sequence[Sequence[InstanceData]]): One per teacher, with
                one entry per image.
            indices (Sequence[Tensor]): One per teacher, see
                :meth:`class_tensors`.
        """
        every = [
            self._in_student_classes(InstanceData.cat(list(answer)), index)
            for answer, index in zip(answers, indices)
        ]
        sizes = [[len(image) for image in answer] for answer in answers]
        if len(every) == 1:
            return every[0], sizes[0]
        return self._fused(every, sizes)

    def _in_student_classes(self, found: InstanceData, index: Tensor) -> Found:
        """Detections in the student's classes.

        Those to leave out get a score of 0, so that they are never drawn. To
        remove them would make the host wait for their number.
        """
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
        """Fuse the teachers' detections of each image.

        The whole batch is copied to the CPU once, and back once.
        """
        tables = [
            torch.cat([found.boxes, torch.stack(found[1:], 1)], 1)
            for found in every
        ]
        rows = torch.cat(tables).cpu().split([len(table) for table in tables])
        known = torch.tensor(self.class_indices) != UNKNOWN
        fused = []
        for image in zip(*(x.split(n) for x, n in zip(rows, sizes))):
            kept = [x[x[:, 4] > 0] for x in image]
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
    """The target boxes of each image. The host waits once.

    Args:
        boxes (Tensor): Detections, image by image, then the ground truth,
            image by image, shape (n, 4).
        labels (Tensor): Shape (n, ).
        kept (Tensor): Bool, shape (n, ).
        sizes (list[int]): Number of detections of each of the N images, then
            number of ground-truth boxes of each: 2 N numbers.
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
