"""Class scores of any dense mmdet head, in one layout.

An anchor's score for a class is the one that mmdet ranks its box by: sigmoid
or softmax of the class output, times the sigmoid of centerness, objectness or
IoU where the head predicts one. :func:`score_outputs` finds these outputs.
Distillation reads their product as a logit (:func:`score_logits`), which
keeps its digits near 0 and 1; the exported graph reads probabilities
(:func:`class_probabilities`).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import YOLOV3Head
from torch import Tensor, nn

from .levels import as_list
from .mmyolo_heads import is_mmyolo_head
from .spec import HeadSpec, anchors_per_level, head_spec, unreadable

# float32 holds no probability between 1 - 6e-8 and 1.
PROBABILITY_EPS = 1e-6


def score_logits(head: nn.Module, outputs: Any) -> list[Tensor]:
    """Logits of the class scores of every location of a dense mmdet head.

    A location has the score of its best anchor, so heads of any kind can be
    compared where strides and classes agree. PAA and LAD rank by the square
    root of this score. Probabilities (TOOD) are clamped to the range from
    1e-6 to 1 - 1e-6.

    Args:
        head (nn.Module): A dense head with a ``prior_generator`` that gives
            class scores first: RetinaNet, FCOS, ATSS, GFL, PAA, TOOD, VFNet,
            RTMDet, SSD, YOLOF, YOLOX, YOLOv3, those of MMYOLO and heads
            derived from these.
        outputs (Sequence): What ``head(features)`` returns, in training or
            evaluation mode.

    Returns:
        list[Tensor]: One per level, shape (N, K, H, W) with K foreground
        classes, float32, differentiable.

    Raises:
        ValueError: If the head or its outputs cannot be read.
    """
    return [x.amax(1) for x in anchor_logits(head, outputs)]


def anchor_logits(head: nn.Module, outputs: Any) -> list[Tensor]:
    """Logits of the class scores of every anchor.

    Args:
        head (nn.Module): A dense mmdet head, see :func:`score_logits`.
        outputs (Sequence): What ``head(features)`` returns.

    Returns:
        list[Tensor]: One per level, shape (N, A, K, H, W), float32.

    Raises:
        ValueError: If the head or its outputs cannot be read.
    """
    classes, factors = score_outputs(head, outputs)
    spec = head_spec(head, allow_activated=True)
    logits = [_class_logits(x, spec) for x in classes]
    if factors is None:
        return logits
    return [product_logit(x, f) for x, f in zip(logits, factors)]


def score_outputs(
    head: nn.Module, outputs: Any
) -> tuple[list[Tensor], list[Tensor] | None]:
    """The outputs that a dense head's scores are made of.

    Args:
        head (nn.Module): A dense mmdet head, see :func:`score_logits`.
        outputs (Sequence): What ``head(features)`` returns.

    Returns:
        tuple[list[Tensor], list[Tensor] | None]: The class outputs, one per
        level, shape (N, A, C, H, W) with ``num_classes`` of the head's
        :class:`HeadSpec` as C; and the logits of centerness, objectness or
        IoU, shape (N, A, 1, H, W), or None where the head predicts none of
        these. All float32.

    Raises:
        ValueError: If the head or its outputs cannot be read.
    """
    if anchors_per_level(head) is None:
        raise unreadable(head, 'a dense head with a prior_generator')
    if not isinstance(outputs, Sequence) or len(outputs) == 0:
        raise unreadable(
            head,
            'the tuple that head(features) returns, got '
            f'{type(outputs).__name__}',
        )
    channels = head_spec(head, allow_activated=True).num_classes
    if isinstance(head, YOLOV3Head):  # x, y, w, h, objectness, classes
        maps = by_anchor(head, outputs[0], 5 + channels, 'predictions')
        return [x[:, :, 5:] for x in maps], [x[:, :, 4:5] for x in maps]
    classes = by_anchor(head, outputs[0], channels, 'class scores')
    if not has_score_factor(head, outputs):
        return classes, None
    return classes, by_anchor(head, outputs[2], 1, 'score factors')


def has_score_factor(head: Any, outputs: Sequence) -> bool:
    """Whether a head's third output is centerness, objectness or IoU.

    This is the case if the output has one channel per anchor. VFNet and
    RepPoints (in training), YOLACT and RTMDet-Ins have boxes, points or mask
    parameters there.

    Args:
        head (nn.Module): A dense mmdet head.
        outputs (Sequence): What ``head(features)`` returns.
    """
    # The distributions of MMYOLO's heads have a channel per location.
    unscored = is_mmyolo_head(head) and head.loss_obj is None
    if len(outputs) < 3 or unscored:
        return False
    shapes = [tuple(getattr(x, 'shape', ())) for x in as_list(outputs[2])]
    channels = [s[1] if len(s) == 4 else None for s in shapes]
    return channels == anchors_per_level(head)


def by_anchor(
    head: nn.Module, levels: Any, channels: int, what: str
) -> list[Tensor]:
    """One of a head's outputs with the anchors on an axis of their own.

    Args:
        head (nn.Module): A dense mmdet head.
        levels (Sequence[Tensor]): One per level, shape (N, A * C, H, W).
        channels (int): C.
        what (str): What the output holds, for the message.

    Returns:
        list[Tensor]: One per level, shape (N, A, C, H, W), float32.

    Raises:
        ValueError: If the number of levels or a shape does not fit.
    """
    anchors = anchors_per_level(head)
    if anchors is None:
        raise unreadable(head, 'a dense head with a prior_generator')
    maps = as_list(levels)
    shapes = [tuple(getattr(x, 'shape', ())) for x in maps]
    wanted = [count * channels for count in anchors]
    if [s[1] if len(s) == 4 else None for s in shapes] != wanted:
        raise unreadable(
            head,
            f'{what} of {len(wanted)} level(s) with {wanted} channels '
            f'(anchors x {channels}), got shapes {shapes}',
        )
    return [x.unflatten(1, (-1, channels)).float() for x in maps]


def class_probabilities(x: Tensor, spec: HeadSpec) -> Tensor:
    """Class outputs (..., C) as probabilities (..., K), no background."""
    if spec.activated:
        return x
    return x.sigmoid() if spec.use_sigmoid else x.softmax(-1)[..., :-1]


def _class_logits(x: Tensor, spec: HeadSpec) -> Tensor:
    """Class outputs (N, A, C, H, W) as logits (N, A, K, H, W)."""
    if spec.activated:
        return torch.logit(x, PROBABILITY_EPS)
    return x if spec.use_sigmoid else foreground_logits(x, 2)


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of sigmoid(a) * sigmoid(b).

    With p = sigmoid(a) * sigmoid(b): 1 / p - 1 = e^-a (1 + e^-b (1 + e^a)),
    so that logit p = a - softplus(softplus(a) - b), which neither overflows
    nor takes the logarithm of a rounded difference.

    Args:
        a (Tensor): Logits.
        b (Tensor): Logits of a shape that broadcasts with ``a``.

    Returns:
        Tensor: Logits of the broadcast shape.
    """
    return a - F.softplus(F.softplus(a) - b)


def foreground_logits(logits: Tensor, dim: int) -> Tensor:
    """Softmax outputs as one logit per class, without the background.

    With p = softmax(x): logit p_k = x_k - logsumexp of all other x. For the
    largest entry the others are summed, since 1 - p_k may round to 0; for the
    rest p_k <= 1/2, and log(1 - p_k) is exact.

    Args:
        logits (Tensor): K + 1 entries along ``dim``, background last.
        dim (int): Class axis.

    Returns:
        Tensor: K entries along ``dim``.
    """
    top = logits.argmax(dim, keepdim=True)
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(dim, top, True)
    others = logits.masked_fill(is_top, -torch.inf).logsumexp(dim, True)
    log_p = logits.log_softmax(dim)
    p = log_p.exp().masked_fill(is_top, 0)  # no log(0) in the unused branch
    result = torch.where(is_top, logits - others, log_p - torch.log1p(-p))
    return result.narrow(dim, 0, logits.shape[dim] - 1)
