"""Turn the student's input batch into the input a teacher was trained on.

Student and teacher may differ in mean, std, channel order, padding value and
size divisor. Images are not loaded again, so that the teacher sees the same
augmented batch as the student.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What `_normalisation` returned, by data_preprocessor.
_NORMALISATIONS: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()


def to_teacher_inputs(
    inputs: Tensor,
    student_pp: nn.Module,
    teacher_pp: nn.Module,
    data_samples: list[Any],
    channels: int | None = None,
) -> Tensor:
    """Re-normalise a batch for a teacher.

    The student's batch is turned back into pixel values, put into the
    teacher's channel order and normalised with the teacher's mean and std.
    The padding gets the teacher's value and grows to the teacher's size
    divisor. Augmentations of the batch (multi-scale, mosaic) are kept.

    Args:
        inputs (Tensor): The student's input, shape (N, C, H, W).
        student_pp (nn.Module): The student's data_preprocessor.
        teacher_pp (nn.Module): The teacher's data_preprocessor.
        data_samples (list[DetDataSample]): N samples; their ``img_shape``
            separates image from padding.
        channels (int, optional): Number of channels that the teacher takes.
            It is used only if the length of the teacher's mean does not
            say.

    Returns:
        Tensor: Shape (N, C, H', W') with H' >= H and W' >= W.

    Raises:
        ValueError: If a data_preprocessor does not say how it normalises,
            or the teacher takes another number of channels than the batch
            has.
    """
    student_pp = _innermost(student_pp, 'student')
    teacher_pp = _innermost(teacher_pp, 'teacher')
    flip = _flipped(student_pp) != _flipped(teacher_pp)
    _check_channels(inputs.shape[1], teacher_pp, channels, flip)
    divisor = max(1, getattr(teacher_pp, 'pad_size_divisor', 1))
    height, width = inputs.shape[-2:]
    grow = (-height % divisor, -width % divisor)
    if _normalisation(student_pp) == _normalisation(teacher_pp) and grow == (
        0,
        0,
    ):
        return inputs
    mean, std = _statistics(student_pp, inputs)
    pixels = inputs * std + mean
    if flip:
        pixels = pixels.flip(1)
    mean, std = _statistics(teacher_pp, inputs)
    pixels = (pixels - mean) / std
    pad_value = float(getattr(teacher_pp, 'pad_value', 0))
    for image, sample in zip(pixels, data_samples):
        rows, columns = sample.metainfo['img_shape'][:2]
        image[:, rows:] = pad_value
        image[:, :, columns:] = pad_value
    return F.pad(pixels, (0, grow[1], 0, grow[0]), value=pad_value)


def noise_input(preprocessor: nn.Module, channels: int, side: int) -> Tensor:
    """An image of smooth noise as a detector gets it.

    Args:
        preprocessor (nn.Module): Its data_preprocessor.
        channels (int): 3 for colour images.
        side (int): Height and width in pixels.

    Returns:
        Tensor: Shape (1, channels, side, side), the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(
        (1, channels, side // 16, side // 16), generator=generator
    )
    pixels = 255 * F.interpolate(coarse, (side, side), mode='bilinear')
    mean, std = _statistics(_innermost(preprocessor, 'teacher'), pixels)
    return (pixels - mean) / std


def _check_channels(
    given: int, teacher_pp: Any, taken: int | None, flip: bool
) -> None:
    """Make sure that the teacher takes the channels of the student's batch."""
    if teacher_pp._enable_normalize and len(teacher_pp.mean) > 1:
        taken = len(teacher_pp.mean)
    if taken not in (None, given):
        raise ValueError(
            f"the student's images have {given} channel(s), the teacher takes "
            f'{taken} (according to its mean or its first layer); expected '
            'the same number. Give a teacher that was trained on such images, '
            'or load the images as the teacher needs them (color_type of '
            'LoadImageFromFile) and set in_channels of the student.'
        )
    if flip and given != 3:
        raise ValueError(
            'bgr_to_rgb (or rgb_to_bgr) is set in the data_preprocessor of '
            'only one of student and teacher; expected images of 3 channels '
            f'then, got {given}. Set it in both or in neither.'
        )


def _innermost(preprocessor: nn.Module, owner: str) -> nn.Module:
    """The preprocessor that normalises, inside the wrapper that models with
    several branches have."""
    inner = getattr(preprocessor, 'data_preprocessor', preprocessor)
    if not hasattr(inner, '_enable_normalize'):
        raise ValueError(
            f'the data_preprocessor of the {owner} is a '
            f'{type(inner).__name__}, which does not say how it normalises '
            "images; expected dict(type='DetDataPreprocessor', mean=..., "
            'std=...).'
        )
    return inner


def _flipped(preprocessor: nn.Module) -> bool:
    """Whether it reverses the channel order (BGR to RGB or back)."""
    return bool(getattr(preprocessor, '_channel_conversion', False))


def _statistics(preprocessor: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std, each of shape (C, 1, 1) or (1, 1, 1); 0 and 1 if it does
    not normalise."""
    if not preprocessor._enable_normalize:
        return like.new_zeros(1, 1, 1), like.new_ones(1, 1, 1)
    return preprocessor.mean.to(like), preprocessor.std.to(like)


def _normalisation(preprocessor: nn.Module) -> tuple:
    """Everything that decides how an image becomes an input."""
    # Read once, since reading a buffer makes the host wait for the device.
    if preprocessor not in _NORMALISATIONS:
        mean, std = _statistics(preprocessor, torch.zeros(()))
        _NORMALISATIONS[preprocessor] = (
            mean.flatten().tolist(),
            std.flatten().tolist(),
            _flipped(preprocessor),
            float(getattr(preprocessor, 'pad_value', 0)),
        )
    return _NORMALISATIONS[preprocessor]
