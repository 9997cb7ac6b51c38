"""Heads of MMYOLO, known by the names of their classes.

They derive from its ``YOLOv5Head`` and have one way of giving their outputs:
class scores, boxes and, where ``loss_obj`` is built, objectness. MMYOLO is not
imported.
"""

from typing import Any

from torch import Tensor, nn

#: Coders of axis-aligned boxes. All decode (1, M, 4) boxes of (1, M, ...)
#: priors with strides (M, ).
CODERS = ('YOLOv5BBoxCoder', 'YOLOXBBoxCoder', 'DistancePointBBoxCoder')


def is_mmyolo_head(head: nn.Module) -> bool:
    """Whether a head is one of MMYOLO's, or derived from one."""
    return any(
        kind.__name__ == 'YOLOv5Head' and kind.__module__.startswith('mmyolo.')
        for kind in type(head).__mro__
    )


def decodes_boxes(head: Any) -> bool:
    """Whether this is a head of MMYOLO for boxes that are not rotated."""
    coder = getattr(head, 'bbox_coder', None)
    return is_mmyolo_head(head) and type(coder).__name__ in CODERS


def decode(
    head: Any, raw: Tensor, priors: Tensor, stride: int | Tensor
) -> Tensor:
    """Boxes as MMYOLO predicts them, before it clips them to the image.

    Args:
        head (nn.Module): A head with :func:`decodes_boxes`.
        raw (Tensor): Box outputs, shape (M, 4).
        priors (Tensor): Anchors (M, 4) or points (M, 2), in pixels.
        stride (int | Tensor): Of all M, or of each, shape (M, 1).

    Returns:
        Tensor: x1, y1, x2, y2 in pixels, shape (M, 4).
    """
    strides = (raw.new_ones(len(raw), 1) * stride).flatten()
    return head.bbox_coder.decode(priors[None], raw[None], strides)[0]
