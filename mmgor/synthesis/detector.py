"""Which detectors images can be synthesised from, and what they are given."""

from typing import Any

from torch import nn

from mmgor.image_channels import COLOUR, image_channels

from .statistics import matched_norms

# Parts that learn from masks, which drawn boxes do not have.
_MASKS = {'mask_head', 'semantic_head', 'panoptic_head'}
# Attributes of detectors that other networks teach.
_TEACHERS = ('teacher', 'teachers', 'teacher_model')


def check_detector(model: nn.Module) -> None:
    """Make sure that the detector learns from colour images with boxes alone.

    Args:
        model (nn.Module): Detector of mmdet.

    Raises:
        ValueError: If it has no batch norm with statistics, has teachers,
            learns from masks or from images of other than 3 channels.
    """
    matched_norms(model)
    name = type(model).__name__
    if any(hasattr(model, attribute) for attribute in _TEACHERS):
        raise ValueError(
            'images are synthesised from one float detector: expected one '
            f'that is trained by itself, got a {name} with teachers. Type the '
            "config of a stock detector, such as type='RetinaNet', and its "
            'checkpoint.'
        )
    masks = sorted(
        path
        for path, _ in model.named_modules()
        if path.rpartition('.')[2] in _MASKS
    )
    if masks:
        raise ValueError(
            'images are synthesised with boxes, not with masks: expected a '
            f'detector of boxes alone, got a {name} with {", ".join(masks)}. '
            'Type the config and the checkpoint of a detector without masks.'
        )
    channels = image_channels(model)
    if channels not in (COLOUR, None):
        raise ValueError(
            'synthesised images have 3 channels: expected a detector of '
            f'colour images, got a {name} for images with {channels} '
            'channel(s). Type the config and the checkpoint of a detector of '
            'colour images.'
        )


def preprocessing(model: Any) -> dict[str, Any]:
    """What the detector does to pixels before its first layer.

    Args:
        model (nn.Module): Detector of mmdet.

    Returns:
        dict: ``channels_reversed``, and ``mean`` and ``std`` in units of
        pixels from 0 to 255, if it has them. Fit for JSON.
    """
    part = model.data_preprocessor
    flips = bool(getattr(part, '_channel_conversion', False))
    numbers = {k: v.flatten().tolist() for k, v in part.named_buffers()}
    return dict(channels_reversed=flips, **numbers)
