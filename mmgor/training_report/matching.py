"""Compares detections with ground truth: matches, F1, the best threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

#: A detection counts as right from this IoU on.
IOU = 0.5


@dataclass(frozen=True)
class Boxes:
    """Labelled boxes of one image.

    Attributes:
        boxes (Tensor): Shape (N, 4), left, top, right, bottom in pixels of
            the image.
        labels (Tensor): Shape (N, ), int64.
        scores (Tensor): Shape (N, ); of ground truth 1.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def above(self, threshold: float) -> 'Boxes':
        """Those with at least this score."""
        keep = self.scores >= threshold
        return Boxes(self.boxes[keep], self.labels[keep], self.scores[keep])

    def __len__(self) -> int:
        return len(self.labels)


def match(found: Boxes, truth: Boxes) -> Tensor:
    """Which object each detection finds.

    The detections choose in the order of their scores. Each takes the free
    object of its class with the largest IoU, if that is at least :data:`IOU`.

    Args:
        found (Boxes): N detections.
        truth (Boxes): M objects.

    Returns:
        Tensor: Shape (N, ), int64: index of the object, or -1.
    """
    chosen = torch.full((len(found),), -1)
    if not len(truth):
        return chosen
    overlap = bbox_overlaps(found.boxes.float(), truth.boxes.float())
    overlap[found.labels[:, None] != truth.labels] = 0
    for index in found.scores.argsort(descending=True, stable=True).tolist():
        value, target = overlap[index].max(0)
        if value >= IOU:
            chosen[index] = target
            overlap[:, target] = 0
    return chosen


def without_ignored(found: Boxes, truth: Boxes, ignored: Tensor) -> Boxes:
    """The detections without those in regions that do not count.

    A detection is left out if it finds no object, and at least :data:`IOU` of
    its area is in one region.

    Args:
        found (Boxes): N detections.
        truth (Boxes): The objects that count.
        ignored (Tensor): Regions, such as crowds, shape (K, 4).
    """
    if not len(ignored) or not len(found):
        return found
    inside = bbox_overlaps(found.boxes.float(), ignored.float(), mode='iof')
    keep = (inside.amax(1) < IOU) | (match(found, truth) >= 0)
    return Boxes(found.boxes[keep], found.labels[keep], found.scores[keep])


def f1_score(right: int, found: int, objects: int) -> float:
    """F1, the harmonic mean of precision and recall.

    Args:
        right (int): Detections that found an object.
        found (int): All detections.
        objects (int): All objects.

    Returns:
        float: 0 to 1; 1 if there is neither a detection nor an object.
    """
    return 2 * right / (found + objects) if found + objects else 1.0


def image_f1(found: Boxes, truth: Boxes, threshold: float) -> float:
    """F1 of an image's detections with at least this score."""
    kept = found.above(threshold)
    right = int((match(kept, truth) >= 0).sum())
    return f1_score(right, len(kept), len(truth))


def best_threshold(
    pairs: Sequence[tuple[Boxes, Boxes]],
) -> tuple[float, float]:
    """The score from which on detections count, so that F1 is largest.

    Objects of all images and classes count alike.

    Args:
        pairs (Sequence[tuple[Boxes, Boxes]]): Detections and ground truth of
            each image.

    Returns:
        tuple[float, float]: The threshold and its F1; of equal ones the
        highest. (0.5, 0.0) if no detection finds an object.
    """
    objects = sum(len(truth) for _, truth in pairs)
    scores = torch.cat([found.scores.float() for found, _ in pairs])
    right = torch.cat([match(found, truth) >= 0 for found, truth in pairs])
    if not right.any():
        return 0.5, 0.0
    order = scores.argsort(descending=True, stable=True)
    scores, hits = scores[order], right[order].cumsum(0)
    counts = torch.arange(1, len(scores) + 1)
    f1 = 2 * hits / (counts + objects)
    # A threshold keeps all detections of its score.
    f1[:-1][scores[:-1] == scores[1:]] = 0
    index = int(f1.argmax())
    return scores[index].item(), f1[index].item()
