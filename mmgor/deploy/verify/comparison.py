"""Measures how much the outputs and detections of two programs differ."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from .changed_roundings import MOST_TOLERATED

#: Largest mean difference of an output, in units of its standard deviation.
MEAN_TOLERANCE = 0.1
#: A relative change of all that PyTorch rounds: eight times the last digit of
#: float32. It moves YOLOX-nano's outputs nearly as far as integer arithmetic
#: does (docs/results/integers.md).
CHANGE = 1e-6
#: Tolerated mean difference, in units of the one that this change makes.
FACTOR = 2.0
#: The share of detections that the other side must have in any case.
LEAST_SHARE = 0.5
#: Largest difference of a mAP, in points (hundredths).
MAP_TOLERANCE = 0.1
#: Detections with this score or more are counted.
COUNTED_SCORE = 0.3
#: Smallest share of the counted detections that the other side must have too.
#: Correct exports had 0.96 (RetinaNet, W4A4) and 0.86 (YOLOX-nano, W4A4).
MATCHED_SHARE = 0.75
# An output that varies less, relative to its root mean square, is constant:
# float32 has 7 digits, and both sides add in another order.
_CONSTANT = 1e-5
_IOU = 0.9
_QUANTILE = 0.99
# Number of values per image that the quantile is computed from.
_SAMPLED = 10_000


class OutputDifference:
    """How much one output of the file differs from PyTorch's, over all images.

    The unit is the standard deviation of PyTorch's output. (The outputs of
    the head are not quantized, so there is no quantization step to count in.)

    Args:
        name (str): Name of the output.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._count = 0
        self._sums = torch.zeros(4, dtype=torch.float64)
        self._largest = 0.0
        self._sampled: list[Tensor] = []

    def add(self, reference: Tensor, got: Tensor, changed: Tensor) -> None:
        """Add a batch.

        Args:
            reference (Tensor): PyTorch's output, any shape.
            got (Tensor): The file's output, of the same shape.
            changed (Tensor): PyTorch's output after a tiny change of what it
                rounds, of the same shape.
        """
        wanted = reference.double().flatten()
        apart = (wanted - got.double().flatten()).abs()
        moved = (wanted - changed.double().flatten()).abs()
        self._count += wanted.numel()
        self._sums += torch.stack(
            [wanted.sum(), wanted.square().sum(), apart.sum(), moved.sum()]
        )
        self._largest = max(self._largest, float(apart.max()))
        stride = max(1, apart.numel() // (_SAMPLED * len(reference)))
        self._sampled.append(apart[::stride])

    @property
    def unit(self) -> float:
        """The standard deviation; 1 for a constant output."""
        mean, square, *_ = (self._sums / self._count).tolist()
        deviation = max(square - mean * mean, 0.0) ** 0.5
        return deviation if deviation > _CONSTANT * square**0.5 else 1.0

    @property
    def mean(self) -> float:
        """Mean absolute difference, in units."""
        return float(self._sums[2]) / self._count / self.unit

    @property
    def own(self) -> float:
        """Mean difference of PyTorch's output from itself, after everything
        that is rounded changed by a share of :data:`CHANGE`, in units."""
        return float(self._sums[3]) / self._count / self.unit

    @property
    def quantile(self) -> float:
        """The difference that 99 % of the values do not exceed, in units."""
        ordered = torch.cat(self._sampled).sort().values
        return float(ordered[int(_QUANTILE * (len(ordered) - 1))]) / self.unit

    @property
    def max(self) -> float:
        """Largest absolute difference, in units."""
        return self._largest / self.unit


@dataclass
class Verification:
    """The result of :func:`.verify_export`.

    Attributes:
        outputs (list[OutputDifference]): One per output of the head.
        images (int): Number of images that were compared.
        detections (int): Number of detections with a score of
            :data:`COUNTED_SCORE` or more, of both sides together.
        matched (int): Number of those that the other side has too: of the
            same class, with an IoU above 0.9 and any score.
        score_difference (float): Largest difference of the scores of a
            matched pair.
        own_detections (int): As ``detections``, of PyTorch and of PyTorch
            after a tiny change of what it rounds.
        own_matched (int): As ``matched``, of these two.
        metrics (list[dict]): Metrics of PyTorch and of the file; empty if
            they were not evaluated.
        same_weights (bool): Whether the file was exported from the weights
            of this checkpoint, by their SHA-256.
    """

    outputs: list[OutputDifference] = field(default_factory=list)
    images: int = 0
    detections: int = 0
    matched: int = 0
    score_difference: float = 0.0
    own_detections: int = 0
    own_matched: int = 0
    metrics: list[dict[str, float]] = field(default_factory=list)
    same_weights: bool = True

    def add_outputs(
        self,
        names: list[str],
        ours: list[Tensor],
        theirs: list[Tensor],
        changed: list[Tensor],
    ) -> None:
        """Add the raw outputs of a batch.

        Args:
            names (list[str]): Names of the outputs.
            ours (list[Tensor]): PyTorch's outputs, N entries each.
            theirs (list[Tensor]): The file's outputs, of the same shapes.
            changed (list[Tensor]): PyTorch's outputs after a tiny change of
                what it rounds.
        """
        if not self.outputs:
            self.outputs = [OutputDifference(name) for name in names]
        rows = zip(self.outputs, ours, theirs, changed, strict=True)
        for output, *tensors in rows:
            output.add(*tensors)

    def add_detections(self, ours: Any, theirs: Any) -> None:
        """Add the detections in an image.

        Args:
            ours (InstanceData): PyTorch's detections.
            theirs (InstanceData): The file's detections.
        """
        self.images += 1
        pairs = match_detections(ours, theirs)
        counted, matched = _count(ours, theirs, pairs)
        self.detections += counted
        self.matched += matched
        for i, j in pairs:
            apart = abs(float(ours.scores[i] - theirs.scores[j]))
            self.score_difference = max(self.score_difference, apart)

    def add_own_detections(self, ours: Any, changed: Any) -> None:
        """Add what PyTorch finds in an image before and after a tiny change.

        Args:
            ours (InstanceData): PyTorch's detections.
            changed (InstanceData): Those after the change.
        """
        pairs = match_detections(ours, changed)
        counted, matched = _count(ours, changed, pairs)
        self.own_detections += counted
        self.own_matched += matched

    def failures(
        self,
        mean_tolerance: float = MEAN_TOLERANCE,
        map_tolerance: float = MAP_TOLERANCE,
        matched_share: float = MATCHED_SHARE,
    ) -> list[str]:
        """List the differences that are larger than tolerated.

        Args:
            mean_tolerance (float): Largest mean difference of an output, in
                units. Twice what PyTorch's own output moves by
                (:attr:`.OutputDifference.own`) is tolerated as well, up to
                :data:`.MOST_TOLERATED`.
            map_tolerance (float): Largest difference of a mAP, in points.
                CocoMetric rounds to 0.1 points.
            matched_share (float): Smallest ``matched / detections``. Twice
                the share that PyTorch itself does not find again is tolerated
                as well, down to :data:`LEAST_SHARE`.

        Returns:
            list[str]: One line per difference.
        """
        lines = []
        if not self.same_weights:
            lines.append(
                'weights: the file was exported from another checkpoint '
                '(their SHA-256 differ); give that one, or export again'
            )
        for output in self.outputs:
            own = FACTOR * output.own if isfinite(output.own) else 0.0
            tolerated = max(mean_tolerance, min(own, MOST_TOLERATED))
            # "not <=" instead of ">", so that NaN fails.
            if not output.mean <= tolerated:
                lines.append(
                    f'{output.name}: mean difference {output.mean:.3g}, '
                    f'tolerated {tolerated:.3g}'
                )
        lost = self.own_detections - self.own_matched
        lost_share = FACTOR * lost / max(self.own_detections, 1)
        share = min(matched_share, max(1 - lost_share, LEAST_SHARE))
        if not self.matched >= share * self.detections:
            lines.append(
                f'detections: the other side has {self.matched} of '
                f'{self.detections}, expected a share of {share:.3g}'
            )
        return lines + self._map_failures(map_tolerance)

    def _map_failures(self, tolerance: float) -> list[str]:
        if not self.metrics:
            return []
        ours, theirs = self.metrics
        keys = _map_keys(self.metrics)
        if not keys:
            return [
                'no mAP to compare: expected test_evaluator to give a metric '
                'whose name ends in mAP, got '
                f'{sorted({*ours, *theirs}) or "none"}'
            ]
        lines = []
        for key in keys:
            if key not in ours or key not in theirs:
                lines.append(f'{key}: only one side has detections')
            # NaN fails here too.
            elif not abs(ours[key] - theirs[key]) * 100 <= tolerance + 1e-6:
                lines.append(
                    f'{key}: {100 * ours[key]:.1f} and '
                    f'{100 * theirs[key]:.1f}, tolerated {tolerance:g} points'
                )
        return lines

    def text(self) -> str:
        """The result as a printable table."""
        lines = [f'{self.images} images']
        if self.outputs:
            lines += [
                'Raw outputs; differences in units of the standard deviation '
                f"of PyTorch's output (own: PyTorch, after {CHANGE:g} of "
                'all that is rounded):',
                f'{"output":<16}{"std":>10}{"own":>10}{"mean":>10}'
                f'{"99 %":>10}{"max":>10}',
            ]
        lines += [
            f'{o.name:<16}{o.unit:>10.3g}{o.own:>10.3g}{o.mean:>10.3g}'
            f'{o.quantile:>10.3g}{o.max:>10.3g}'
            for o in self.outputs
        ]
        lines.append(
            f'Detections with a score of {COUNTED_SCORE} or more: the other '
            f'side has {self.matched} of {self.detections} (both sides '
            f'together; same class, IoU above {_IOU}); largest difference of '
            f'a score: {self.score_difference:.3g}'
        )
        if self.own_detections:
            lines.append(
                f'PyTorch itself, after {CHANGE:g} of all that is rounded: '
                f'{self.own_matched} of {self.own_detections}'
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


def _count(
    ours: Any, theirs: Any, pairs: list[tuple[int, int]]
) -> tuple[int, int]:
    """Number of counted detections of both sides, and of those in a pair."""
    counted = matched = 0
    for side, chosen in ((ours, 0), (theirs, 1)):
        high = side.scores >= COUNTED_SCORE
        counted += int(high.sum())
        matched += sum(bool(high[pair[chosen]]) for pair in pairs)
    return counted, matched


def match_detections(ours: Any, theirs: Any) -> list[tuple[int, int]]:
    """Pair detections of the same class whose IoU is above 0.9.

    In descending order of their scores, each detection of ``ours`` takes the
    one of ``theirs`` that it overlaps most, among those not yet taken.

    Args:
        ours (InstanceData): ``bboxes`` (n, 4), ``labels`` (n, ) and
            ``scores`` (n, ).
        theirs (InstanceData): The same for m detections.

    Returns:
        list[tuple[int, int]]: Indices of the pairs; each detection is in one
        pair at most.
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
