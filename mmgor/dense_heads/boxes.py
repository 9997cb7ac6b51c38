"""Decoded boxes of any dense mmdet head, in one layout."""

from functools import singledispatch
from typing import Any

import torch
from mmdet.models.dense_heads import (
    AnchorHead,
    AutoAssignHead,
    CenterNetUpdateHead,
    FCOSHead,
    GFLHead,
    RTMDetHead,
    TOODHead,
    VFNetHead,
    YOLOV3Head,
    YOLOXHead,
)
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from .scores import anchor_logits, by_anchor, head_strides, unreadable


def location_boxes(
    head: nn.Module,
    outputs: Any,
    training: bool,
    classes: Tensor | None = None,
) -> list[Tensor]:
    """The box of every location's best anchor.

    The best anchor has the largest score among ``classes`` (see
    :func:`~mmgor.dense_heads.scores.score_logits`). Boxes are those
    that mmdet predicts, before they are clipped to the picture.

    Args:
        head (nn.Module): Any head that derives from mmdet's AnchorHead, FCOS,
            CenterNetUpdate, YOLOX or YOLOv3 head: RetinaNet, ATSS, PAA, GFL,
            TOOD, VFNet, RTMDet, SSD, YOLOF, AutoAssign and so on.
        outputs (Sequence): What ``head(features)`` returns.
        training (bool): Whether the head was in training mode at that time:
            FCOS with ``norm_on_bbox`` and CenterNetUpdate then give distances
            in strides, else in pixels.
        classes (Tensor, optional): Which classes count, bool, shape (K, );
            default: all.

    Returns:
        list[Tensor]: One a level, shape (N, 4, H, W): x1, y1, x2, y2 in input
        pixels, float32, differentiable with respect to the box outputs.

    Raises:
        ValueError: If the head or its outputs cannot be read.
    """
    with torch.no_grad():  # scores only choose
        logits = anchor_logits(head, outputs)
    if classes is not None:
        others = ~classes[:, None, None]
        logits = [x.masked_fill(others, -torch.inf) for x in logits]
    raw = _raw_boxes(head, outputs)
    strides = head_strides(head)
    generator: Any = head.prior_generator
    priors = generator.grid_priors(
        [x.shape[-2:] for x in raw], dtype=raw[0].dtype, device=raw[0].device
    )
    boxes = []
    for scores, deltas, anchors, stride in zip(logits, raw, priors, strides):
        n, _, channels, h, w = deltas.shape
        best = scores.amax(2).argmax(1)  # (N, H, W)
        index = best[:, None, None].expand(-1, 1, channels, -1, -1)
        chosen = deltas.gather(1, index)[:, 0].permute(0, 2, 3, 1)
        # mmdet's priors run over locations first, then over anchors.
        anchors = get_box_tensor(anchors).unflatten(0, (h * w, -1))
        places = torch.arange(h * w, device=best.device)
        chosen_anchors = anchors[places.repeat(n), best.flatten()]
        decoded = _decode(
            head,
            chosen.reshape(-1, channels),
            chosen_anchors,
            stride,
            training,
        )
        decoded = get_box_tensor(decoded)
        boxes.append(decoded.reshape(n, h, w, 4).permute(0, 3, 1, 2))
    return boxes


def distribution_logits(head: nn.Module, outputs: Any) -> list[Tensor]:
    """Logits of the box edges' distributions of a GFL-type head.

    What localization distillation compares (LD, Zheng et al., CVPR 2022): the
    softmax over axis 2 is the distribution of the distance, in strides, from
    the location to an edge (left, top, right, bottom) over 0 ... reg_max.

    Args:
        head (nn.Module): A head with ``reg_max``, e.g. GFLHead.
        outputs (Sequence): What ``head(features)`` returns.

    Returns:
        list[Tensor]: One a level, shape (N, A * 4, reg_max + 1, H, W),
        float32; GFL has one anchor a location.

    Raises:
        ValueError: If the head has no ``reg_max``, or its outputs do not fit.
    """
    bins = _bins(head)
    if bins is None:
        raise unreadable(
            head, 'a head with reg_max, e.g. GFLHead, in student and teacher'
        )
    if len(outputs) < 2:
        raise unreadable(head, f'2 outputs, got {len(outputs)}')
    levels = by_anchor(head, outputs[1], 4 * bins, 'box distributions')
    return [x.flatten(1, 2).unflatten(1, (-1, bins)) for x in levels]


def _bins(head: nn.Module) -> int | None:
    reg_max = getattr(head, 'reg_max', None)
    return None if reg_max is None else int(reg_max) + 1


def _raw_boxes(head: nn.Module, outputs: Any) -> list[Tensor]:
    """Box outputs as (N, A, C, H, W), one a level."""
    if isinstance(head, YOLOV3Head):
        maps = by_anchor(head, outputs[0], head.num_attrib, 'predictions')
        return [x[:, :, :4] for x in maps]
    if len(outputs) < 2:
        raise unreadable(
            head, f'class scores and boxes, got {len(outputs)} output(s)'
        )
    # In training VFNet gives the boxes before and after refinement.
    refined = isinstance(head, VFNetHead) and len(outputs) == 3
    channels = 4 * (_bins(head) or 1)
    return by_anchor(head, outputs[2 if refined else 1], channels, 'boxes')


# One decoder a family, found by the head's class. The box coder alone does
# not tell: FoveaHead and RepPointsHead have one that they never use.


@singledispatch
def _decode(
    head: nn.Module, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    """Boxes (M, 4) of raw outputs (M, C) and priors (M, 2 or 4)."""
    raise unreadable(
        head,
        'an AnchorHead or FCOSHead of mmdet or one derived from them, or a '
        'CenterNetUpdateHead, YOLOXHead or YOLOV3Head',
    )


@_decode.register(AnchorHead)
@_decode.register(AutoAssignHead)  # an FCOSHead, in pixels in both modes
@_decode.register(RTMDetHead)
@_decode.register(VFNetHead)
def _(
    head: Any, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    return head.bbox_coder.decode(priors, raw)


@_decode.register
def _(
    head: FCOSHead, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    if training and head.norm_on_bbox:
        raw = raw * stride
    return head.bbox_coder.decode(priors, raw)


@_decode.register
def _(
    head: CenterNetUpdateHead,
    raw: Tensor,
    priors: Tensor,
    stride: int,
    training: bool,
) -> Tensor:
    return head.bbox_coder.decode(priors, raw * stride if training else raw)


@_decode.register
def _(
    head: GFLHead, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    # head.integral is a matrix product, which autocast does in half precision.
    # An offloaded teacher's is on the CPU again.
    project = head.integral.project.to(raw)
    distribution = raw.unflatten(1, (4, -1)).softmax(2)
    distances = (distribution * project).sum(2) * stride
    return head.bbox_coder.decode(head.anchor_center(priors), distances)


@_decode.register
def _(
    head: TOODHead, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    return raw * stride  # the head decodes by itself, in strides


@_decode.register
def _(
    head: YOLOXHead, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    sizes = torch.full_like(priors, stride)
    return head._bbox_decode(torch.cat([priors, sizes], 1), raw)


@_decode.register
def _(
    head: YOLOV3Head, raw: Tensor, priors: Tensor, stride: int, training: bool
) -> Tensor:
    raw = torch.cat([raw[:, :2].sigmoid(), raw[:, 2:]], 1)
    return head.bbox_coder.decode(priors, raw, stride)
