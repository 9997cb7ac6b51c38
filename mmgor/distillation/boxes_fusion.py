"""Weighted boxes fusion: one set of boxes out of several detectors'.

Solovyev, Wang, Gabruseva, "Weighted boxes fusion: Ensembling boxes from
different object detection models", Image and Vision Computing 2021.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def weighted_boxes_fusion(
    boxes: list[Tensor],
    scores: list[Tensor],
    labels: list[Tensor],
    weights: Sequence[float] | Tensor | None = None,
    iou_threshold: float = 0.55,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse the boxes of M teachers in one picture.

    Within each class, boxes come in descending order of w s (weight of the
    teacher times score). A box joins the cluster whose fused box it overlaps
    most, if by more than ``iou_threshold``; otherwise it founds one. With W
    the sum of all M weights and sums over the boxes of a cluster,

        box = sum(w s box) / sum(w s)
        score = sum(w s) / sum(w) * min(sum(w), W) / W

    so what one of M equal teachers alone has seen keeps 1/M of its score.
    With equal weights this is the paper's mean(s) * min(T, M) / M for T
    boxes; a weight of 2 is worth two copies of the teacher. The authors' code
    says sum(w s) / T * min(T, M) / W: the same unless weights differ and a
    teacher has several boxes in one cluster, where it can exceed 1.

    Boxes without area and boxes with w s = 0 are left out. Boxes of equal
    w s come in the order given; apart from those, the order of the teachers
    does not matter. Clusters form one box after the other, so the work is
    done on the CPU.

    Args:
        boxes (list[Tensor]): Of each teacher, x1 y1 x2 y2 in pixels, shape
            (n_i, 4).
        scores (list[Tensor]): In [0, 1], shape (n_i, ).
        labels (list[Tensor]): Class indices that mean the same for all
            teachers, shape (n_i, ).
        weights (Sequence[float] | Tensor, optional): Of each teacher, shape
            (M, ), not negative. None: all equal.
        iou_threshold (float): In [0, 1).

    Returns:
        tuple[Tensor, Tensor, Tensor]: Boxes (n, 4), scores (n, ), labels
        (n, ), by descending score, on the device and with the dtypes of the
        first teacher's.

    Raises:
        ValueError: If the arguments do not fit each other or are out of range.
    """
    _check(boxes, scores, labels, iou_threshold)
    teacher_weights = _teacher_weights(weights, len(boxes))
    box = torch.cat(boxes).cpu().double()
    label = torch.cat(labels).cpu()
    weight = teacher_weights.repeat_interleave(
        torch.tensor([len(x) for x in boxes])
    )
    score = torch.cat(scores).cpu().double()
    valid = (score >= 0) & (score <= 1) & torch.isfinite(box).all(1)
    if not bool(valid.all()):
        raise ValueError(
            'expected finite boxes and scores in [0, 1], got '
            f'{torch.cat([box, score[:, None]], 1)[~valid][0].tolist()} (box '
            'and score). Give probabilities, not logits.'
        )
    strength = score * weight
    usable = (strength > 0) & (box[:, :2] < box[:, 2:]).all(1)
    order = strength.argsort(descending=True, stable=True)
    order = order[usable[order]]
    box, strength, weight, label = (
        x[order] for x in (box, strength, weight, label)
    )
    # Columns: w s x1, w s y1, w s x2, w s y2, w s, w.
    parts = torch.cat(
        [box * strength[:, None], strength[:, None], weight[:, None]], 1
    )
    total, founder = _cluster_sums(box, parts, label, iou_threshold)
    # sum(w s) / max(sum(w), W), the docstring's score in one division.
    score = total[:, 4] / total[:, 5].clamp(min=float(teacher_weights.sum()))
    score, order = score.sort(descending=True, stable=True)
    fused = (total[:, :4] / total[:, 4:5])[order]
    label = label[founder][order]
    return fused.to(boxes[0]), score.to(scores[0]), label.to(labels[0])


def _cluster_sums(
    boxes: Tensor, parts: Tensor, labels: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Cluster boxes (n, 4) that come in descending order of w s.

    Returns:
        tuple[Tensor, Tensor]: Sums of ``parts`` (n, 6) over each of the c
        clusters, shape (c, 6), and the box that founded it, shape (c, ).
    """
    columns = boxes.t().contiguous()
    same_class = labels[:, None] == labels
    # Row j: IoU of all boxes with the fused box of the cluster that box j
    # founded. It only changes when a box joins, which keeps the loop short.
    overlap = _iou(columns, columns[:, :, None]) * same_class
    overlap.fill_diagonal_(0)
    sums = parts.tolist()
    founders = []
    for i, part in enumerate(parts.tolist()):
        largest, best = overlap[: i + 1, i].max(0)
        if largest.item() <= iou_threshold:
            founders.append(i)
            continue
        j = int(best)
        sums[j] = [old + new for old, new in zip(sums[j], part)]
        fused = [x / sums[j][4] for x in sums[j][:4]]
        overlap[j] = _iou(columns, fused) * same_class[j]
        overlap[i] = 0
    founder = torch.tensor(founders, dtype=torch.int64)
    return parts.new_tensor(sums).view(-1, 6)[founder], founder


def _iou(a: Tensor, b: Tensor | list[float]) -> Tensor:
    """IoU of boxes given as columns (4, ...) that broadcast: shape (...).

    Columns, as products over an axis of two are slow."""
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    width = (ax2.clamp(max=bx2) - ax1.clamp(min=bx1)).clamp(min=0)
    height = (ay2.clamp(max=by2) - ay1.clamp(min=by1)).clamp(min=0)
    shared = width * height
    areas = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
    return shared / (areas - shared)


def _teacher_weights(
    weights: Sequence[float] | Tensor | None, num_teachers: int
) -> Tensor:
    """The weights as a double tensor (M, ) on the CPU."""
    if weights is None:
        return torch.ones(num_teachers, dtype=torch.float64)
    result = torch.as_tensor(weights, dtype=torch.float64).cpu()
    valid = torch.isfinite(result) & (result >= 0)
    if result.shape != (num_teachers,) or not valid.all() or result.sum() <= 0:
        raise ValueError(
            f'expected {num_teachers} finite weights >= 0, one for each '
            f'teacher and not all 0, got {result.tolist()}. weights=None '
            'weighs all teachers the same.'
        )
    return result


def _check(
    boxes: list[Tensor],
    scores: list[Tensor],
    labels: list[Tensor],
    iou_threshold: float,
) -> None:
    """Raise ValueError unless shapes fit and the threshold is in range."""
    if not 0 <= iou_threshold < 1:
        raise ValueError(
            f'expected iou_threshold in [0, 1), got {iou_threshold}; the '
            "paper's is 0.55."
        )
    if not boxes or not len(boxes) == len(scores) == len(labels):
        raise ValueError(
            'expected boxes, scores and labels of the same teachers, one or '
            f'more, got {len(boxes)}, {len(scores)} and {len(labels)} '
            'entries. A teacher that saw nothing gives boxes.new_zeros(0, 4).'
        )
    for i, (box, score, label) in enumerate(zip(boxes, scores, labels)):
        n = len(box)
        got = [tuple(x.shape) for x in (box, score, label)]
        if got != [(n, 4), (n,), (n,)]:
            raise ValueError(
                f'teacher {i}: expected boxes (n, 4), scores (n, ) and labels '
                f'(n, ), got shapes {got}. Give the boxes of one picture, '
                'with the score of their own class only.'
            )
