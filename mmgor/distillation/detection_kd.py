"""KD head for final detections, which every detector gives."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmgor.registry import MODELS

from .boxes_fusion import weighted_boxes_fusion
from .class_lists import UNKNOWN, to_student_labels
from .kd_base import BaseKDHead
from .taps import DETECTIONS, Tapped
from .teacher import Teacher


@MODELS.register_module()
class DetectionKDHead(BaseKDHead):
    """Distils final detections through the student's own assigner and losses.

    Works for teachers of every kind, two-stage and DETR too. Each detection
    becomes a box to learn with a probability equal to its score, drawn anew
    in every step: the expected target of a matched location is the score,
    and a loss that is linear in its target has the soft label's gradient in
    the mean, up to the head's normaliser, which counts the boxes drawn.
    (Hard labels above a threshold would need one, and would throw away what
    the teacher is unsure of.) This loss does not vanish where student and
    teacher agree.

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

    def __init__(
        self,
        min_score: float = 0.05,
        iou_threshold: float = 0.55,
        student_tap: str = 'bbox_head',
        **kwargs: Any,
    ) -> None:
        super().__init__(student_tap, DETECTIONS, **kwargs)
        if not 0 <= min_score < 1 or not 0 < iou_threshold < 1:
            raise ValueError(
                'expected 0 <= min_score < 1 and 0 < iou_threshold < 1, got '
                f'{min_score} and {iou_threshold}.'
            )
        self.min_score = min_score
        self.iou_threshold = iou_threshold

    def check_pair(self, student: nn.Module, teacher: Teacher) -> None:
        head = student.get_submodule(self.student_tap)
        if not isinstance(head, BaseDenseHead) or isinstance(head, RPNHead):
            raise ValueError(
                'DetectionKDHead needs a dense student head, whose '
                'loss_by_feat assigns boxes to locations, got '
                f'{type(head).__name__}. Set student_tap to one (rpn_head '
                'knows no classes), or use a FeatureKDHead.'
            )

    def compute(self, student: Tapped, teachers: Sequence[Tapped]) -> Tensor:
        head: Any = student.module
        part = torch.tensor(1 / len(teachers))
        self.shares = dict.fromkeys(self.teachers, part)
        boxes = [
            self._draw(*self._fused(picture))
            for picture in zip(*(tapped.output for tapped in teachers))
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
        self, picture: Sequence[InstanceData]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of one picture in the student's classes."""
        indices = self._indices(picture[0].scores.device)
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

    def _indices(self, device: torch.device) -> list[Tensor]:
        if self.class_indices is None:
            raise RuntimeError(
                "nobody mapped the teachers' classes by name; expected "
                "custom_hooks=[dict(type='GoRWeightHook')], which does."
            )
        return self.class_tensors(device, 0, [])

    def _in_student_classes(
        self, found: InstanceData, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        labels, known = to_student_labels(found.labels, index)
        kept = known & (found.scores >= self.min_score)
        return (
            found.bboxes[kept].float(),
            found.scores[kept].float(),
            labels[kept],
        )

    @staticmethod
    def _draw(boxes: Tensor, scores: Tensor, labels: Tensor) -> InstanceData:
        drawn = torch.rand_like(scores) < scores
        return InstanceData(bboxes=boxes[drawn], labels=labels[drawn])
