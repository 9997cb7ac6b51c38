"""How far the outputs and detections of two programs are apart."""

from dataclasses import dataclass, field
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

#: Largest mean difference of an output, in units of its standard deviation.
MEAN_TOLERANCE = 0.1
#: Largest difference of a mAP in points (hundredths).
MAP_TOLERANCE = 0.1
#: Detections from this score on are counted.
COUNTED_SCORE = 0.3
#: Smallest share of them that the other side must have, too. Right exports
#: had 0.96 (RetinaNet, W4A4) and 0.86 (YOLOX-nano, W4A4).
MATCHED_SHARE = 0.75
_IOU = 0.9
_QUANTILE = 0.99
# Values an image that the quantile is taken of.
_SAMPLED = 10_000


class OutputDifference:
    """How far one output of the head is from PyTorch's, over all images.

    The unit is the standard deviation of PyTorch's output. (The outputs of
    the prediction layers are not quantized: there is no step to count in.)

    Args:
        name (str): Of the output.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._count = 0
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._largest = 0.0
        self._sampled: list[Tensor] = []

    def add(self, reference: Tensor, got: Tensor) -> None:
        """Take in a batch.

        Args:
            reference (Tensor): PyTorch's output, any shape.
            got (Tensor): The file's, the same shape.
        """
        wanted = reference.double().flatten()
        apart = (wanted - got.double().flatten()).abs()
        self._count += wanted.numel()
        self._sums += torch.stack(
            [wanted.sum(), wanted.square().sum(), apart.sum()]
        )
        self._largest = max(self._largest, float(apart.max()))
        stride = max(1, apart.numel() // (_SAMPLED * len(reference)))
        self._sampled.append(apart[::stride])

    @property
    def unit(self) -> float:
        """The standard deviation; 1 for an output that is constant."""
        mean, square, _ = (self._sums / self._count).tolist()
        return max(square - mean * mean, 0.0) ** 0.5 or 1.0

    @property
    def mean(self) -> float:
        """Mean absolute difference in units."""
        return float(self._sums[2]) / self._count / self.unit

    @property
    def quantile(self) -> float:
        """99 % of the values are no further apart, in units."""
        ordered = torch.cat(self._sampled).sort().values
        return float(ordered[int(_QUANTILE * (len(ordered) - 1))]) / self.unit

    @property
    def max(self) -> float:
        """Largest absolute difference in units."""
        return self._largest / self.unit


@dataclass
class Verification:
    """What :func:`.verify_export` found.

    Attributes:
        outputs (list[OutputDifference]): One an output of the head.
        images (int): Pictures that outputs and detections are of.
        detections (int): Detections of both sides from
            :data:`COUNTED_SCORE` on.
        matched (int): Those that the other side has, too: the same class,
            IoU above 0.9, any score.
        score_difference (float): Largest, over matched pairs.
        metrics (list[dict]): The evaluator's, of PyTorch and of the file;
            an empty list if not asked for.
        same_weights (bool): Whether the file says that it was exported from
            this checkpoint's weights.
    """

    outputs: list[OutputDifference] = field(default_factory=list)
    images: int = 0
    detections: int = 0
    matched: int = 0
    score_difference: float = 0.0
    metrics: list[dict[str, float]] = field(default_factory=list)
    same_weights: bool = True

    def add_outputs(
        self, names: list[str], ours: list[Tensor], theirs: list[Tensor]
    ) -> None:
        """Take in the raw outputs of a batch.

        Args:
            names (list[str]): Of the outputs.
            ours (list[Tensor]): PyTorch's, N entries each.
            theirs (list[Tensor]): The file's.
        """
        if not self.outputs:
            self.outputs = [OutputDifference(name) for name in names]
        pairs = zip(self.outputs, ours, theirs, strict=True)
        for output, reference, got in pairs:
            output.add(reference, got)

    def add_detections(self, ours: Any, theirs: Any) -> None:
        """Take in the detections of a picture.

        Args:
            ours (InstanceData): PyTorch's.
            theirs (InstanceData): The file's.
        """
        self.images += 1
        pairs = match_detections(ours, theirs)
        for side, chosen in ((ours, 0), (theirs, 1)):
            counted = side.scores >= COUNTED_SCORE
            self.detections += int(counted.sum())
            self.matched += sum(bool(counted[pair[chosen]]) for pair in pairs)
        for i, j in pairs:
            apart = abs(float(ours.scores[i] - theirs.scores[j]))
            self.score_difference = max(self.score_difference, apart)

    def failures(
        self,
        mean_tolerance: float = MEAN_TOLERANCE,
        map_tolerance: float = MAP_TOLERANCE,
        matched_share: float = MATCHED_SHARE,
    ) -> list[str]:
        """What is further apart than tolerated, a line each.

        Args:
            mean_tolerance (float): Mean difference of an output, in units.
            map_tolerance (float): Difference of a mAP in points. CocoMetric
                rounds to 0.1 points.
            matched_share (float): Smallest ``matched / detections``.
        """
        lines = []
        if not self.same_weights:
            lines.append(
                'weights: the file was exported from another checkpoint '
                '(another SHA-256); give that one, or export again'
            )
        lines += [
            f'{output.name}: mean difference {output.mean:.3g}, tolerated '
            f'{mean_tolerance:g}'
            for output in self.outputs
            # Not "greater": that would let a NaN pass.
            if not output.mean <= mean_tolerance
        ]
        if not self.matched >= matched_share * self.detections:
            lines.append(
                f'detections: {self.matched} of {self.detections} are on the '
                f'other side, too, wanted a share of {matched_share:g}'
            )
        return lines + self._map_failures(map_tolerance)

    def _map_failures(self, tolerance: float) -> list[str]:
        if not self.metrics:
            return []
        ours, theirs = self.metrics
        keys = _map_keys(self.metrics)
        if not keys:
            return [
                'no mAP to compare: expected a metric named ...mAP of '
                f'test_evaluator, got {sorted({*ours, *theirs}) or "none"}'
            ]
        lines = []
        for key in keys:
            if key not in ours or key not in theirs:
                lines.append(f'{key}: only one side has detections')
            # Not "greater", here too.
            elif not abs(ours[key] - theirs[key]) * 100 <= tolerance + 1e-6:
                lines.append(
                    f'{key}: {100 * ours[key]:.1f} and '
                    f'{100 * theirs[key]:.1f}, tolerated {tolerance:g} points'
                )
        return lines

    def text(self) -> str:
        """A table for the eye."""
        lines = [f'{self.images} pictures']
        if self.outputs:
            lines += [
                "Raw outputs; differences in units of PyTorch's standard "
                'deviation:',
                f'{"output":<16}{"std":>10}{"mean":>10}{"99 %":>10}'
                f'{"max":>10}',
            ]
        lines += [
            f'{o.name:<16}{o.unit:>10.3g}{o.mean:>10.3g}{o.quantile:>10.3g}'
            f'{o.max:>10.3g}'
            for o in self.outputs
        ]
        lines.append(
            f'Detections of score {COUNTED_SCORE} or more: '
            f'{self.matched} of {self.detections} (both sides together) are '
            f'on the other side, too (same class, IoU above {_IOU}); largest '
            f'difference of a score {self.score_difference:.3g}'
        )
        for key in _map_keys(self.metrics):
            ours, theirs = (
                f'{100 * side[key]:.1f}' if key in side else 'no detections'
                for side in self.metrics
            )
            lines.append(f'{key}: PyTorch {ours}, file {theirs}')
        return '\n'.join(lines)


def _map_keys(metrics: list[dict[str, float]]) -> list[str]:
    keys = {key for side in metrics for key in side}
    return sorted(key for key in keys if key.endswith('mAP'))


def match_detections(ours: Any, theirs: Any) -> list[tuple[int, int]]:
    """Pairs of one class that overlap by more than 0.9, each used once.

    Args:
        ours (InstanceData): ``bboxes`` (n, 4), ``labels`` (n, ) and
            ``scores`` (n, ).
        theirs (InstanceData): The same of m detections.

    Returns:
        list[tuple[int, int]]: Indices; the highest scores of ``ours`` choose
        first, each the largest overlap that is left.
    """
    overlaps = bbox_overlaps(ours.bboxes, theirs.bboxes)
    overlaps[ours.labels[:, None] != theirs.labels[None]] = 0
    pairs = []
    for i in ours.scores.argsort(descending=True).tolist():
        if not len(theirs.scores):
            break
        best, j = overlaps[i].max(0)
        if best > _IOU:
            overlaps[:, j] = 0
            pairs.append((i, int(j)))
    return pairs
