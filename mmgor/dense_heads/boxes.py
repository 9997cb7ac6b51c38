"""Boxes of any dense mmdet head, decoded, in one layout.

:func:`box_outputs` finds the raw outputs, :func:`decode_boxes` turns them
into boxes. Distillation decodes the best anchor of each location
(:func:`location_boxes`), the exported graph decodes all anchors.
"""

from collections.abc import Sequence
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

from . import mmyolo_heads
from .mmyolo_heads import decodes_boxes
from .scores import anchor_logits, by_anchor
from .spec import head_strides, unreadable

Stride = int | Tensor


def location_boxes(
    head: nn.Module,
    outputs: Any,
    training: bool,
    classes: Tensor | None = None,
) -> list[Tensor]:
    """The box of the best anchor of every location.

    The best anchor has the largest score among ``classes`` (see
    :func:`~mmgor.dense_heads.scores.score_logits`). Boxes are those that
    mmdet predicts, before it clips them to the image.

    Args:
        head (nn.Module): Any head that derives from mmdet's AnchorHead, FCOS,
            CenterNetUpdate, YOLOX or YOLOv3 head: RetinaNet, ATSS, PAA, GFL,
            TOOD, VFNet, RTMDet, SSD, YOLOF, AutoAssign and so on; or from
            MMYOLO's YOLOv5Head.
        outputs (Sequence): What ``head(features)`` returns.
        training (bool): Whether the head was in training mode then.
        classes (Tensor, optional): Which classes count, bool, shape (K, );
            default: all.

    Returns:
        list[Tensor]: One per level, shape (N, 4, H, W): x1, y1, x2, y2 in
        input pixels, float32, differentiable with respect to the box outputs.

    Raises:
        ValueError: If the head or its outputs cannot be read.
    """
    with torch.no_grad():  # scores only choose
        logits = anchor_logits(head, outputs)
    if classes is not None:
        others = ~classes[:, None, None]
        logits = [x.masked_fill(others, -torch.inf) for x in logits]
    raw = box_outputs(head, outputs)
    levels = zip(logits, raw, level_priors(head, raw), head_strides(head))
    boxes = []
    for scores, deltas, priors, stride in levels:
        n, _, channels, h, w = deltas.shape
        best = scores.amax(2).argmax(1)  # (N, H, W)
        index = best[:, None, None].expand(-1, 1, channels, -1, -1)
        chosen = deltas.gather(1, index)[:, 0].permute(0, 2, 3, 1)
        places = torch.arange(h * w, device=best.device).repeat(n)
        # Only chosen anchors are decoded: where the exponential of another
        # one overflows, its gradient would be 0 * inf.
        decoded = decode_boxes(
            head,
            chosen.reshape(-1, channels),
            priors.unflatten(0, (h * w, -1))[places, best.flatten()],
            stride,
            training,
        )
        boxes.append(decoded.reshape(n, h, w, 4).permute(0, 3, 1, 2))
    return boxes


def distribution_logits(head: nn.Module, outputs: Any) -> list[Tensor]:
    """Logits of the distributions of the box edges of a GFL-type head.

    Localization distillation compares them (LD, Zheng et al., CVPR 2022): the
    softmax over axis 2 is the distribution of the distance, in strides, from
    the location to an edge (left, top, right, bottom) over 0 ... reg_max.

    Args:
        head (nn.Module): A head with ``reg_max``, e.g. GFLHead.
        outputs (Sequence): What ``head(features)`` returns.

    Returns:
        list[Tensor]: One per level, shape (N, A * 4, reg_max + 1, H, W),
        float32. GFL has one anchor per location.

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


def box_outputs(head: nn.Module, outputs: Any) -> list[Tensor]:
    """The outputs that a dense head's boxes are decoded from.

    Args:
        head (nn.Module): A dense mmdet head, see :func:`location_boxes`.
        outputs (Sequence): What ``head(features)`` returns.

    Returns:
        list[Tensor]: One per level, shape (N, A, C, H, W), float32; C is 4,
        or 4 * (reg_max + 1) for a head that predicts distributions.

    Raises:
        ValueError: If the outputs do not fit the head.
    """
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


def _bins(head: nn.Module) -> int | None:
    reg_max = getattr(head, 'reg_max', None)
    return None if reg_max is None else int(reg_max) + 1


def level_priors(head: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """A dense head's anchors or points.

    Args:
        head (nn.Module): A dense mmdet head.
        maps (Sequence[Tensor]): One per level, shape (..., H, W); they give
            size, dtype and device.

    Returns:
        list[Tensor]: One per level, shape (H * W * A, 4) for anchors or
        (H * W, 2) for points, in pixels; all anchors of a location in a row.
    """
    generator: Any = head.prior_generator
    priors = generator.grid_priors(
        [x.shape[-2:] for x in maps],
        dtype=maps[0].dtype,
        device=maps[0].device,
    )
    return [get_box_tensor(x) for x in priors]


def decode_boxes(
    head: nn.Module,
    raw: Tensor,
    priors: Tensor,
    stride: Stride,
    training: bool = False,
) -> Tensor:
    """Boxes as mmdet predicts them, before it clips them to the image.

    Args:
        head (nn.Module): A dense mmdet head, see :func:`location_boxes`.
        raw (Tensor): Box outputs, shape (M, C), see :func:`box_outputs`.
        priors (Tensor): Anchors (M, 4) or points (M, 2), in pixels.
        stride (int | Tensor): Of all M, or of each, shape (M, 1).
        training (bool): Whether the head was in training mode: FCOS with
            ``norm_on_bbox`` and CenterNetUpdate then give distances in
            strides, otherwise in pixels.

    Returns:
        Tensor: x1, y1, x2, y2 in pixels, shape (M, 4).

    Raises:
        ValueError: If the head is of an unknown family.
    """
    return get_box_tensor(_decode(head, raw, priors, stride, training))


# One decoder per family, found by the head's class. The box coder alone does
# not decide: FoveaHead and RepPointsHead have one that they never use.


@singledispatch
def _decode(
    head: nn.Module,
    raw: Tensor,
    priors: Tensor,
    stride: Stride,
    training: bool,
) -> Tensor:
    """See :func:`decode_boxes`."""
    if decodes_boxes(head):
        return mmyolo_heads.decode(head, raw, priors, stride)
    raise unreadable(
        head,
        'an AnchorHead, FCOSHead, CenterNetUpdateHead, YOLOXHead or '
        'YOLOV3Head of mmdet, a head of MMYOLO for boxes without an angle, or '
        'a head derived from one of these',
    )


@_decode.register(AnchorHead)
@_decode.register(AutoAssignHead)  # an FCOSHead, in pixels in both modes
@_decode.register(RTMDetHead)
@_decode.register(VFNetHead)
def _(
    head: Any, raw: Tensor, priors: Tensor, stride: Stride, training: bool
) -> Tensor:
    return head.bbox_coder.decode(priors, raw)


@_decode.register
def _(
    head: FCOSHead, raw: Tensor, priors: Tensor, stride: Stride, training: bool
) -> Tensor:
    if training and head.norm_on_bbox:
        raw = raw * stride
    return head.bbox_coder.decode(priors, raw)


@_decode.register
def _(
    head: CenterNetUpdateHead,
    raw: Tensor,
    priors: Tensor,
    stride: Stride,
    training: bool,
) -> Tensor:
    return head.bbox_coder.decode(priors, raw * stride if training else raw)


@_decode.register
def _(
    head: GFLHead, raw: Tensor, priors: Tensor, stride: Stride, training: bool
) -> Tensor:
    # head.integral is a matrix product, which autocast does in half precision.
    # An offloaded teacher's is on the CPU again.
    project = head.integral.project.to(raw)
    distribution = raw.unflatten(1, (4, -1)).softmax(2)
    distances = (distribution * project).sum(2) * stride
    return head.bbox_coder.decode(head.anchor_center(priors), distances)


@_decode.register
def _(
    head: TOODHead, raw: Tensor, priors: Tensor, stride: Stride, training: bool
) -> Tensor:
    return raw * stride  # the head decodes by itself, in strides


@_decode.register
def _(
    head: YOLOXHead,
    raw: Tensor,
    priors: Tensor,
    stride: Stride,
    training: bool,
) -> Tensor:
    sizes = torch.ones_like(priors) * stride
    return head._bbox_decode(torch.cat([priors, sizes], 1), raw)


@_decode.register
def _(
    head: YOLOV3Head,
    raw: Tensor,
    priors: Tensor,
    stride: Stride,
    training: bool,
) -> Tensor:
    raw = torch.cat([raw[:, :2].sigmoid(), raw[:, 2:]], 1)
    return head.bbox_coder.decode(priors, raw, stride)
