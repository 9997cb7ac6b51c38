"""Boxes and classes drawn at random, for images that do not exist yet."""

import math

import torch
from torch import Tensor

#: Square root of a box's area, as a share of that of the image's.
SIZES = (0.1, 0.8)
#: Width over height.
SHAPES = (0.5, 2.0)
#: Two boxes of an image have at most this IoU.
MOST_OVERLAP = 0.1
#: Boxes that are drawn anew because of their overlap, per image.
_TRIES = 20


def sample_boxes(
    generator: torch.Generator,
    size: tuple[int, int],
    num_classes: int,
    most: int = 4,
) -> tuple[Tensor, Tensor]:
    """Draw the objects of one image.

    Their number is uniform from 1 to ``most``, fewer if they would overlap.
    Sizes and shapes are log-uniform, classes and positions uniform.

    Args:
        generator (torch.Generator): Source of all random choices.
        size (tuple[int, int]): Height and width of the image in pixels.
        num_classes (int): Labels are from 0 to this, exclusively.
        most (int): Largest number of objects.

    Returns:
        tuple[Tensor, Tensor]: Boxes as (x1, y1, x2, y2) in pixels, inside of
        the image, shape (N, 4), and labels, int64, shape (N,).
    """
    wanted = int(torch.randint(1, most + 1, (), generator=generator))
    boxes: list[list[float]] = []
    for _ in range(_TRIES):
        if len(boxes) == wanted:
            break
        box = _sample_box(generator, size)
        if all(_iou(box, other) <= MOST_OVERLAP for other in boxes):
            boxes.append(box)
    labels = torch.randint(num_classes, (len(boxes),), generator=generator)
    return torch.tensor(boxes), labels


def _sample_box(
    generator: torch.Generator, size: tuple[int, int]
) -> list[float]:
    height, width = size
    draws = torch.rand(4, generator=generator).tolist()
    side = _log_uniform(*SIZES, draws[0]) * math.sqrt(height * width)
    shape = math.sqrt(_log_uniform(*SHAPES, draws[1]))
    w, h = min(side * shape, width), min(side / shape, height)
    left, top = draws[2] * (width - w), draws[3] * (height - h)
    return [left, top, left + w, top + h]


def _log_uniform(low: float, high: float, draw: float) -> float:
    return low * (high / low) ** draw


def _iou(a: list[float], b: list[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return shared / (areas - shared)
