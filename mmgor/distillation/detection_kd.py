"""KD head for final detections, which every detector gives."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmgor.config_values import number
from mmgor.registry import MODELS

from . import functional
from .boxes_fusion import weighted_boxes_fusion
from .class_lists import UNKNOWN, to_student_labels
from .kd_base import BaseKDHead
from .taps import DETECTIONS, Tapped
from .teacher import Teacher

#: Of a box, in pixels.
MIN_SIDE = 1
#: Boxes (n, 4), scores (n, ) and labels (n, ) of one picture.
Found = tuple[Tensor, Tensor, Tensor]


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
    (:func:`~.functional.systematic_draw`), which keeps the normaliser steady.
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

    def compute(self, student: Tapped, teachers: Sequence[Tapped]) -> Tensor:
        head: Any = student.module
        part = torch.tensor(1 / len(teachers))
        self.shares = dict.fromkeys(self.teachers, part)
        pictures = list(zip(*(tapped.output for tapped in teachers)))
        indices = self.class_tensors(
            pictures[0][0].scores.device,
            head.num_classes,
            [None] * len(teachers),
        )
        found = [self._fused(picture, indices) for picture in pictures]
        known = torch.stack([index != UNKNOWN for index in indices]).any(0)
        truth = [sample.gt_instances for sample in student.data_samples]
        boxes = [
            _with_truth(drawn, labelled, known)
            for drawn, labelled in zip(_drawn(found), truth)
        ]
        metas = [sample.metainfo for sample in student.data_samples]
        outputs = student.output
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        losses = head.loss_by_feat(*outputs, boxes, metas, None)
        terms: list[Tensor] = []
        for name, value in losses.items():
            if 'loss' in name:
                terms += [value] if isinstance(value, Tensor) else value
        return torch.stack([term.mean() for term in terms]).sum()

    def _fused(
        self, picture: Sequence[InstanceData], indices: Sequence[Tensor]
    ) -> Found:
        """One picture's detections in the student's classes."""
        found = [
            self._in_student_classes(p, i) for p, i in zip(picture, indices)
        ]
        if len(found) == 1:
            return found[0]
        boxes, scores, labels = (list(part) for part in zip(*found))
        known = torch.stack([index != UNKNOWN for index in indices])
        return weighted_boxes_fusion(
            boxes, scores, labels, known, self.iou_threshold
        )

    def _in_student_classes(self, found: InstanceData, index: Tensor) -> Found:
        labels, known = to_student_labels(found.labels, index)
        sides = found.bboxes[:, 2:] - found.bboxes[:, :2]
        # A box without area has no finite regression target.
        kept = known & (sides >= MIN_SIDE).all(1)
        kept &= found.scores >= self.min_score
        return (
            found.bboxes[kept].float(),
            found.scores[kept].float(),
            labels[kept],
        )


def _drawn(pictures: Sequence[Found]) -> list[InstanceData]:
    """What is drawn of a batch's detections, picture by picture."""
    scores = [found[1] for found in pictures]
    every = torch.cat(scores)
    start = torch.rand((), device=every.device)
    drawn = functional.systematic_draw(every, start)
    return [
        InstanceData(bboxes=boxes[kept], labels=labels[kept])
        for (boxes, _, labels), kept in zip(
            pictures, drawn.split([len(s) for s in scores])
        )
    ]


def _with_truth(
    drawn: InstanceData, truth: InstanceData, known: Tensor
) -> InstanceData:
    """Add the labelled boxes of the classes that are not ``known`` (K, )."""
    added = ~known[truth.labels]
    boxes = get_box_tensor(truth.bboxes)  # may be HorizontalBoxes
    return InstanceData(
        bboxes=torch.cat([drawn.bboxes, boxes[added]]),
        labels=torch.cat([drawn.labels, truth.labels[added]]),
    )
