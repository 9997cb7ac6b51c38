"""How a dense head classifies, and which strides and anchors it has.

mmdet spreads this over ``loss_cls``, ``cls_out_channels``,
``prior_generator`` and attributes of single families. Everything else in
this package reads a head through the functions here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class HeadSpec:
    """How a dense head classifies.

    Attributes:
        use_sigmoid (bool): True for one binary score per class, False for a
            softmax over the classes and the background.
        num_classes (int): Class channels per anchor. A softmax head counts
            the background, which mmdet puts last.
        activated (bool): The outputs are probabilities, not logits (TOOD).
    """

    use_sigmoid: bool
    num_classes: int
    activated: bool = False

    def __str__(self) -> str:
        kind = 'sigmoid' if self.use_sigmoid else 'softmax'
        return f'{kind} head with {self.num_classes} class outputs'


def head_spec(head: nn.Module, allow_activated: bool = False) -> HeadSpec:
    """Read how a head classifies.

    Args:
        head (nn.Module): A dense mmdet head.
        allow_activated (bool): Accept a head that gives probabilities.

    Raises:
        ValueError: If the head does not declare it, or if it gives
            probabilities and ``allow_activated`` is False.
    """
    loss = getattr(head, 'loss_cls', None)
    sigmoid = getattr(
        loss, 'use_sigmoid', getattr(head, 'use_sigmoid_cls', None)
    )
    channels = getattr(
        head, 'cls_out_channels', getattr(head, 'num_classes', None)
    )
    if sigmoid is None or channels is None:
        raise ValueError(
            f'{type(head).__name__} does not tell how it classifies; expected '
            'a dense mmdet head with loss_cls.use_sigmoid and '
            'cls_out_channels. Tap another head, or use a FeatureKDHead.'
        )
    # TOOD: the loss takes probabilities, since the head already applied the
    # sigmoid; a second one would squeeze every score into 0.5 to 0.73.
    activated = bool(getattr(loss, 'activated', False))
    if activated and not allow_activated:
        raise ValueError(
            f'{type(head).__name__} gives probabilities '
            '(loss_cls.activated=True), expected a head that gives logits. '
            'Use a FeatureKDHead.'
        )
    return HeadSpec(bool(sigmoid), int(channels), activated)


def unreadable(head: nn.Module, expected: str) -> ValueError:
    """The error for a head that this package cannot read.

    Args:
        head (nn.Module): The head.
        expected (str): What was expected, and what came instead.
    """
    return ValueError(
        f'cannot read the outputs of {type(head).__name__}: expected '
        f'{expected}. To distil, use a FeatureKDHead, or a DetectionKDHead, '
        'which needs final detections only; to export, leave out nms.'
    )


def head_strides(head: nn.Module) -> list[int]:
    """Strides of a dense head's levels, in input pixels.

    Args:
        head (nn.Module): A dense mmdet head.

    Returns:
        list[int]: One per level.

    Raises:
        ValueError: If the head has no strides, or different ones in x and y.
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


def anchors_per_level(head: nn.Module) -> list[int] | None:
    """Anchors per location of each level, None without a prior generator."""
    generator = getattr(head, 'prior_generator', None)
    counts = getattr(generator, 'num_base_priors', None)
    return None if counts is None else list(counts)


def same_priors(head: nn.Module, other: nn.Module) -> bool:
    """Whether the priors of two dense heads agree.

    They do if both heads have the same strides and the same anchors, or
    points with the same offset in a cell.
    """
    anchors = anchors_per_level(head)
    if anchors is None or anchors != anchors_per_level(other):
        return False
    if head_strides(head) != head_strides(other):
        return False
    generators = [h.prior_generator for h in (head, other)]
    # Points have an offset, in cells; anchors have it in base_anchors.
    offsets = [getattr(g, 'offset', None) for g in generators]
    if offsets[0] != offsets[1]:
        return False
    mine, theirs = (getattr(g, 'base_anchors', []) for g in generators)
    return len(mine) == len(theirs) and all(
        torch.allclose(a.cpu(), b.cpu()) for a, b in zip(mine, theirs)
    )


def describe_priors(head: nn.Module) -> str:
    """What :func:`same_priors` compares, as text for messages."""
    anchors = anchors_per_level(head)
    if anchors is None:
        return 'no prior_generator'
    strides = head_strides(head)
    text = f'{anchors} priors per location at strides {strides}'
    generator: Any = head.prior_generator
    if hasattr(generator, 'offset'):
        return f'{text} with offset {generator.offset}'
    if not hasattr(generator, 'base_anchors'):
        return text
    boxes = generator.base_anchors[0]
    sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
    sizes = ', '.join(f'{w:.0f} x {h:.0f}' for w, h in sides)
    return f'{text}, at the first of {sizes} px'
