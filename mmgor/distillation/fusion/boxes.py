"""Weighted boxes fusion: the boxes of several detectors become one set.

Source: Solovyev, Wang, Gabruseva, "Weighted boxes fusion: Ensembling boxes
from different object detection models", Image and Vision Computing 2021.
"""

import torch
from torch import Tensor


@torch.no_grad()
def weighted_boxes_fusion(
    boxes: list[Tensor],
    scores: list[Tensor],
    labels: list[Tensor],
    known: Tensor | None = None,
    iou_threshold: float = 0.55,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse the boxes of M teachers in one image.

    Within each class, boxes are taken in descending order of their score s.
    A box joins the cluster whose fused box it overlaps most, if their IoU is
    above ``iou_threshold``; otherwise it starts a new cluster. A cluster of T
    boxes, of a class that m of the M teachers know, gives one fused box. With
    sums over the T boxes,

        box = sum(s box) / sum(s)
        score = sum(s) / max(T, m)

    A box that only one of m teachers finds thus keeps 1/m of its score. If
    all teachers know the class, the score equals mean(s) * min(T, M) / M of
    the paper. A teacher that does not know a class does not lower its scores.

    Boxes without area and boxes of score 0 are left out. Boxes of equal score
    are taken in the order given; otherwise the order of the teachers does not
    matter. The clusters grow one box at a time, therefore on the CPU.

    Args:
        boxes (list[Tensor]): One per teacher, x1 y1 x2 y2 in pixels, shape
            (n_i, 4).
        scores (list[Tensor]): One per teacher, in [0, 1], shape (n_i, ).
        labels (list[Tensor]): One per teacher, class indices that mean the
            same for all teachers, shape (n_i, ).
        known (Tensor, optional): Whether a teacher knows a class, bool, shape
            (M, K); labels are positions in K. None: all teachers know all
            classes.
        iou_threshold (float): In [0, 1).

    Returns:
        tuple[Tensor, Tensor, Tensor]: Boxes (n, 4), scores (n, ) and labels
        (n, ), by descending score, with the device and the dtypes of the
        first teacher's.

    Raises:
        ValueError: If shapes do not match or a value is out of range.
    """
    _check(boxes, scores, labels, iou_threshold)
    box = torch.cat(boxes).cpu().double()
    score = torch.cat(scores).cpu().double()
    label = torch.cat(labels).cpu()
    valid = (score >= 0) & (score <= 1) & torch.isfinite(box).all(1)
    if not bool(valid.all()):
        raise ValueError(
            'expected finite boxes and scores in [0, 1], got '
            f'{torch.cat([box, score[:, None]], 1)[~valid][0].tolist()} (box '
            'and score). Give probabilities, not logits.'
        )
    voters = _voters(known, len(boxes), label)
    usable = (score > 0) & (box[:, :2] < box[:, 2:]).all(1)
    order = score.argsort(descending=True, stable=True)
    order = order[usable[order]]
    box, score, label, voters = (x[order] for x in (box, score, label, voters))
    # Columns: s x1, s y1, s x2, s y2, s, 1.
    one = torch.ones_like(score)
    terms = torch.cat([box * score[:, None], torch.stack([score, one], 1)], 1)
    total, founder = _cluster_sums(box, terms, label, iou_threshold)
    score = total[:, 4] / total[:, 5].maximum(voters[founder])
    score, order = score.sort(descending=True, stable=True)
    fused = (total[:, :4] / total[:, 4:5])[order]
    label = label[founder][order]
    return fused.to(boxes[0]), score.to(scores[0]), label.to(labels[0])


def _cluster_sums(
    boxes: Tensor, terms: Tensor, labels: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Cluster boxes (n, 4) that come in descending order of score.

    Returns:
        tuple[Tensor, Tensor]: Sums of ``terms`` (n, 6) over each of the c
        clusters, shape (c, 6), and the box that started each cluster, shape
        (c, ).
    """
    columns = boxes.t().contiguous()
    same_class = labels[:, None] == labels
    # Row j: IoU of all boxes with the fused box of the cluster that box j
    # started. A row changes only when a box joins, so the loop is short.
    overlap = _iou(columns, columns[:, :, None]) * same_class
    overlap.fill_diagonal_(0)
    sums = terms.tolist()
    founders = []
    for i, own in enumerate(terms.tolist()):
        largest, best = overlap[: i + 1, i].max(0)
        if largest.item() <= iou_threshold:
            founders.append(i)
            continue
        j = int(best)
        sums[j] = [old + new for old, new in zip(sums[j], own)]
        fused = [x / sums[j][4] for x in sums[j][:4]]
        overlap[j] = _iou(columns, fused) * same_class[j]
        overlap[i] = 0
    founder = torch.tensor(founders, dtype=torch.int64)
    return terms.new_tensor(sums).view(-1, 6)[founder], founder


def _iou(a: Tensor, b: Tensor | list[float]) -> Tensor:
    """IoU of boxes given as coordinates (4, ...) that broadcast: shape (...).

    Coordinates come first, since products over an axis of size 2 are slow.
    """
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    width = (ax2.clamp(max=bx2) - ax1.clamp(min=bx1)).clamp(min=0)
    height = (ay2.clamp(max=by2) - ay1.clamp(min=by1)).clamp(min=0)
    shared = width * height
    areas = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
    return shared / (areas - shared)


def _voters(known: Tensor | None, num_teachers: int, labels: Tensor) -> Tensor:
    """How many teachers know the class of each label: shape (n, ), double."""
    if known is None:
        return torch.full(labels.shape, num_teachers, dtype=torch.float64)
    if (
        known.dtype != torch.bool
        or known.dim() != 2
        or len(known) != num_teachers
    ):
        raise ValueError(
            f'expected known as bool of shape ({num_teachers}, K), one row '
            f'per teacher, got {known.dtype} of shape {tuple(known.shape)}. '
            'known=None means that all teachers know all classes.'
        )
    outside = (labels < 0) | (labels >= known.shape[1])
    if bool(outside.any()):
        raise ValueError(
            f'expected labels in [0, {known.shape[1]}), the columns of known, '
            f'got {int(labels[outside][0])}.'
        )
    return known.cpu().sum(0).double()[labels.long()]


def _check(
    boxes: list[Tensor],
    scores: list[Tensor],
    labels: list[Tensor],
    iou_threshold: float,
) -> None:
    """Raise ValueError unless shapes match and the threshold is valid."""
    if not 0 <= iou_threshold < 1:
        raise ValueError(
            f'expected iou_threshold in [0, 1), got {iou_threshold}; the '
            'paper has 0.55.'
        )
    if not boxes or not len(boxes) == len(scores) == len(labels):
        raise ValueError(
            'expected boxes, scores and labels of the same teachers, one or '
            f'more, got {len(boxes)}, {len(scores)} and {len(labels)} '
            'entries. For a teacher that finds nothing give '
            'boxes.new_zeros(0, 4).'
        )
    for i, (box, score, label) in enumerate(zip(boxes, scores, labels)):
        n = len(box)
        got = [tuple(x.shape) for x in (box, score, label)]
        if got != [(n, 4), (n,), (n,)]:
            raise ValueError(
                f'teacher {i}: expected boxes (n, 4), scores (n, ) and labels '
                f'(n, ), got shapes {got}. Give the boxes of one image, '
                'each with the score of its own class only.'
            )
