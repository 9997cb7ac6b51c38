"""Names the images of a batch, for messages."""

from typing import Any

import torch
from torch import Tensor


def name_images(data_batch: Any) -> str:
    """Name a batch's image files, and say in which of them boxes do not fit.

    A box that is outside its image or has no area often means that the image
    does not have the size in its annotations; it may have been rotated, for
    example.

    Args:
        data_batch (Any): As the train dataloader gives it.

    Returns:
        str: Empty if the samples do not name their files.
    """
    is_dict = isinstance(data_batch, dict)
    samples = data_batch.get('data_samples') if is_dict else None
    named = [s for s in samples or [] if hasattr(s, 'img_path')]
    if not named:
        return ''
    misfits = [s.img_path for s in named if not _fits(s)]
    text = f' images {[s.img_path for s in named]}'
    if misfits:
        text += f' (boxes that do not fit their image in {misfits})'
    return text


def _fits(sample: Any) -> bool:
    boxes = getattr(getattr(sample, 'gt_instances', None), 'bboxes', None)
    boxes = getattr(boxes, 'tensor', boxes)  # of mmdet's box types
    if not isinstance(boxes, Tensor) or boxes.shape[-1] != 4:
        return True
    height, width = sample.img_shape[:2]
    left, top, right, bottom = boxes.float().unbind(-1)
    inside = (left >= -1) & (top >= -1)
    inside &= (right <= width + 1) & (bottom <= height + 1)
    sized = (right > left) & (bottom > top)
    return bool((inside & sized & torch.isfinite(boxes).all(-1)).all())
