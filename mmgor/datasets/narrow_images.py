"""Images that resizing leaves no pixel of, such as one of 10,000 x 9 pixels.

OpenCV's error in the middle of a training would not name them.
"""

from collections.abc import Iterator
from typing import Any

from mmcv.image import rescale_size

from mmgor.io.config_reader import type_name

_RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize')
#: Steps of a pipeline after which an image still has its size.
_LOADING = ('LoadImageFromFile', 'LoadAnnotations', 'RandomFlip')


def narrow_images(pipeline: list, images: list[dict]) -> list[dict]:
    """Images of which a pipeline's first resizing leaves no pixel.

    Args:
        pipeline (list[dict]): Configs of transforms. Only those that keep
            the aspect ratio of a whole image are looked at.
        images (list[dict]): Entries of a COCO file.

    Returns:
        list[dict]: Some of the entries.
    """
    for step in pipeline:
        kind = type_name(step)
        if kind in _RESIZES:
            scales = list(_scales(step)) if step.get('keep_ratio') else []
            # A large data set has far fewer sizes than images.
            sizes = {_size(image) for image in images}
            narrow = {size for size in sizes if _vanishes(size, scales)}
            return [image for image in images if _size(image) in narrow]
        if kind not in _LOADING:
            break
    return []


def _size(image: dict) -> tuple[int, int]:
    return image['width'], image['height']


def _vanishes(size: tuple[int, int], scales: list[Any]) -> bool:
    # mmdet reads the true size from the file.
    return min(size) >= 1 and any(
        min(rescale_size(size, scale)) < 1 for scale in scales
    )


def _scales(step: dict) -> Iterator[float | tuple[float, float]]:
    """The sizes or factors, or the least of them, that a step resizes by."""
    given: Any = step.get('scale') or step.get('scales') or []
    if not isinstance(given, (list, tuple)) or _is_size(given):
        given = [given]
    ratios: Any = step.get('ratio_range')
    least = min(ratios) if _is_size(ratios) else 1
    for scale in given:
        size = (scale, scale) if isinstance(scale, int) else scale
        if _is_size(size):
            yield least * size[0], least * size[1]
        elif isinstance(size, float):  # mmcv multiplies by it
            yield size


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(x, (int, float)) for x in value)
    )
