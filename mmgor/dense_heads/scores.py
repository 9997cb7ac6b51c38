"""Class scores of any dense mmdet head, in one layout."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import YOLOV3Head
from torch import Tensor, nn

from .levels import as_list
from .spec import HeadSpec, anchors_per_level, head_spec

# float32 holds no probability between 1 - 6e-8 and 1.
PROBABILITY_EPS = 1e-6


def unreadable(head: nn.Module, expected: str) -> ValueError:
    """The error of a head that these functions cannot read."""
    return ValueError(
        f'cannot read the outputs of {type(head).__name__}: expected '
        f'{expected}. Use a FeatureKDHead, or a DetectionKDHead, which needs '
        'final detections only.'
    )


def head_strides(head: nn.Module) -> list[int]:
    """Strides of a dense head's levels, in input pixels.

    Args:
        head (nn.Module): A dense mmdet head.

    Returns:
        list[int]: One a level.

    Raises:
        ValueError: If the head tells none, or has other strides in x and y.
    """
    generator = getattr(head, 'prior_generator', None)
    owners = (generator, 'strides'), (head, 'strides')
    for owner, name in (*owners, (head, 'featmap_strides')):
        strides = getattr(owner, name, None)
        if isinstance(strides, Sequence) and len(strides) > 0:
            break
    else:
        raise unreadable(
            head, 'a dense head with prior_generator.strides or strides'
        )
    pairs = [s if isinstance(s, Sequence) else (s, s) for s in strides]
    if any(len(set(pair)) != 1 for pair in pairs):
        raise unreadable(
            head, f'strides that are equal in x and y, got {list(strides)}'
        )
    return [int(pair[0]) for pair in pairs]


def same_priors(head: nn.Module, other: nn.Module) -> bool:
    """Whether two dense heads have the same anchors, or points at the same
    places of a cell, at the same strides."""
    anchors = anchors_per_level(head)
    if anchors is None or anchors != anchors_per_level(other):
        return False
    if head_strides(head) != head_strides(other):
        return False
    generators = [h.prior_generator for h in (head, other)]
    # Of points, in cells; anchors have theirs in base_anchors.
    offsets = [getattr(g, 'offset', None) for g in generators]
    if offsets[0] != offsets[1]:
        return False
    mine, theirs = (getattr(g, 'base_anchors', []) for g in generators)
    return len(mine) == len(theirs) and all(
        torch.allclose(a.cpu(), b.cpu()) for a, b in zip(mine, theirs)
    )


def describe_priors(head: nn.Module) -> str:
    """What :func:`same_priors` compares, for messages."""
    anchors = anchors_per_level(head)
    if anchors is None:
        return 'no prior_generator'
    strides = head_strides(head)
    text = f'{anchors} priors a location at strides {strides}'
    generator: Any = head.prior_generator
    if hasattr(generator, 'offset'):
        return f'{text} with offset {generator.offset}'
    if not hasattr(generator, 'base_anchors'):
        return text
    boxes = generator.base_anchors[0]
    sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
    sizes = ', '.join(f'{w:.0f} x {h:.0f}' for w, h in sides)
    return f'{text}, at the first of {sizes} px'


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of sigmoid(a) * sigmoid(b).

    With p = sigmoid(a) * sigmoid(b): 1 / p - 1 = e^-a (1 + e^-b (1 + e^a)),
    so that logit p = a - softplus(softplus(a) - b), which neither overflows
    nor takes the logarithm of a rounded difference.

    Args:
        a (Tensor): Logits.
        b (Tensor): Logits of a shape that broadcasts with ``a``.

    Returns:
        Tensor: Of the broadcast shape.
    """
    return a - F.softplus(F.softplus(a) - b)


def foreground_logits(logits: Tensor, dim: int) -> Tensor:
    """Softmax outputs as one logit a class, without the background.

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


def by_anchor(
    head: nn.Module, levels: Any, channels: int, what: str
) -> list[Tensor]:
    """One of a head's outputs with the anchors on an axis of their own.

    Args:
        head (nn.Module): A dense mmdet head.
        levels (Sequence[Tensor]): One a level, shape (N, A * C, H, W).
        channels (int): C.
        what (str): For the message.

    Returns:
        list[Tensor]: One a level, shape (N, A, C, H, W), float32.

    Raises:
        ValueError: If number of levels or shapes do not fit.
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


def anchor_logits(head: nn.Module, outputs: Any) -> list[Tensor]:
    """The class-score logit of every anchor; see :func:`score_logits`.

    Args:
        head (nn.Module): A dense mmdet head.
        outputs (Sequence): What ``head(features)`` returns.

    Returns:
        list[Tensor]: One a level, shape (N, A, K, H, W), float32.

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
    spec = head_spec(head, allow_activated=True)
    channels = spec.num_classes
    if isinstance(head, YOLOV3Head):  # x, y, w, h, objectness, classes
        maps = by_anchor(head, outputs[0], 5 + channels, 'predictions')
        return [product_logit(x[:, :, 5:], x[:, :, 4:5]) for x in maps]
    logits = by_anchor(head, outputs[0], channels, 'class scores')
    logits = [_to_logits(x, spec) for x in logits]
    if not has_score_factor(head, outputs):
        return logits
    factors = by_anchor(head, outputs[2], 1, 'score factors')
    return [product_logit(x, f) for x, f in zip(logits, factors)]


def score_logits(head: nn.Module, outputs: Any) -> list[Tensor]:
    """Logits of the class scores of every location of a dense mmdet head.

    The score of an anchor is the one that mmdet ranks its box by: sigmoid or
    softmax of the class output, times the sigmoid of centerness, objectness
    or IoU where the head has such an output. A location has the score of its
    best anchor. So heads of any kind can be compared where strides and
    classes agree. PAA and LAD rank by the square root of this product.
    Probabilities (TOOD) are taken as within 1e-6 of 0 and 1.

    Args:
        head (nn.Module): A dense head with a ``prior_generator`` that gives
            class scores first: RetinaNet, FCOS, ATSS, GFL, PAA, TOOD, VFNet,
            RTMDet, SSD, YOLOF, YOLOX, YOLOv3 and their kin.
        outputs (Sequence): What ``head(features)`` returns, of training or
            evaluation mode.

    Returns:
        list[Tensor]: One a level, shape (N, K, H, W) with K foreground
        classes, float32, differentiable.

    Raises:
        ValueError: If the head or its outputs cannot be read.
    """
    return [x.amax(1) for x in anchor_logits(head, outputs)]


def _to_logits(x: Tensor, spec: HeadSpec) -> Tensor:
    if spec.activated:
        return torch.logit(x, PROBABILITY_EPS)
    return x if spec.use_sigmoid else foreground_logits(x, 2)


def has_score_factor(head: nn.Module, outputs: Sequence) -> bool:
    """Whether a head's third output is centerness, objectness or IoU.

    It is where it has one channel an anchor: VFNet and RepPoints (in
    training), YOLACT and RTMDet-Ins have boxes, points or mask parameters
    there.

    Args:
        head (nn.Module): A dense mmdet head.
        outputs (Sequence): What ``head(features)`` returns.
    """
    if len(outputs) < 3:
        return False
    shapes = [tuple(getattr(x, 'shape', ())) for x in as_list(outputs[2])]
    channels = [s[1] if len(s) == 4 else None for s in shapes]
    return channels == anchors_per_level(head)
