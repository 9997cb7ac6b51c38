"""Turn the student's input batch into what a teacher was trained on."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FACTS: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()


def to_teacher_inputs(
    inputs: Tensor,
    student_pp: nn.Module,
    teacher_pp: nn.Module,
    data_samples: list[Any],
    channels: int | None = None,
) -> Tensor:
    """Re-normalise a batch for a teacher.

    The student's batch is taken back to pixels, put into the teacher's
    channel order and normalised with its mean and std; the padding gets the
    teacher's value and grows to the teacher's size divisor. Augmentations of
    the batch (multi-scale, mosaic) are kept, since nothing is loaded again.

    Args:
        inputs (Tensor): What the student sees, shape (N, C, H, W).
        student_pp (nn.Module): The student's data_preprocessor.
        teacher_pp (nn.Module): The teacher's data_preprocessor.
        data_samples (list[DetDataSample]): N samples; ``img_shape`` tells
            picture from padding.
        channels (int, optional): What the teacher takes, where more is known
            than its mean tells.

    Returns:
        Tensor: Shape (N, C, H', W') with H' >= H and W' >= W.

    Raises:
        ValueError: If a data_preprocessor does not tell how it normalises,
            or the teacher takes other channels than the batch has.
    """
    student_pp = _innermost(student_pp, 'student')
    teacher_pp = _innermost(teacher_pp, 'teacher')
    flip = _flipped(student_pp) != _flipped(teacher_pp)
    _check_channels(inputs.shape[1], teacher_pp, channels, flip)
    divisor = max(1, getattr(teacher_pp, 'pad_size_divisor', 1))
    height, width = inputs.shape[-2:]
    grow = (-height % divisor, -width % divisor)
    if _facts(student_pp) == _facts(teacher_pp) and grow == (0, 0):
        return inputs
    mean, std = _statistics(student_pp, inputs)
    pixels = inputs * std + mean
    if flip:
        pixels = pixels.flip(1)
    mean, std = _statistics(teacher_pp, inputs)
    pixels = (pixels - mean) / std
    pad_value = float(getattr(teacher_pp, 'pad_value', 0))
    for picture, sample in zip(pixels, data_samples):
        rows, columns = sample.metainfo['img_shape'][:2]
        picture[:, rows:] = pad_value
        picture[:, :, columns:] = pad_value
    return F.pad(pixels, (0, grow[1], 0, grow[0]), value=pad_value)


def _check_channels(
    given: int, teacher_pp: Any, taken: int | None, flip: bool
) -> None:
    """The teacher must take as many channels as the student's batch has."""
    if teacher_pp._enable_normalize and len(teacher_pp.mean) > 1:
        taken = len(teacher_pp.mean)
    if taken not in (None, given):
        raise ValueError(
            f"the student's images have {given} channel(s), the teacher takes "
            f'{taken} (its mean or its first layer says so); expected as '
            'many. Give a teacher that was trained on such images, or load '
            'the images as it needs them (color_type of LoadImageFromFile) '
            'and set in_channels of the student.'
        )
    if flip and given != 3:
        raise ValueError(
            'bgr_to_rgb (or rgb_to_bgr) is set in the data_preprocessor of '
            'student or teacher alone; expected images of 3 channels then, '
            f'got {given}. Set it in both or in none.'
        )


def _innermost(preprocessor: nn.Module, owner: str) -> nn.Module:
    """Without the wrapper of several branches, which normalises nothing."""
    inner = getattr(preprocessor, 'data_preprocessor', preprocessor)
    if not hasattr(inner, '_enable_normalize'):
        raise ValueError(
            f'the data_preprocessor of the {owner} is a '
            f'{type(inner).__name__}, which does not tell how it normalises '
            "pictures; expected dict(type='DetDataPreprocessor', mean=..., "
            'std=...).'
        )
    return inner


def _flipped(preprocessor: nn.Module) -> bool:
    return bool(getattr(preprocessor, '_channel_conversion', False))


def _statistics(preprocessor: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    if not preprocessor._enable_normalize:
        return like.new_zeros(1, 1, 1), like.new_ones(1, 1, 1)
    return preprocessor.mean.to(like), preprocessor.std.to(like)


def _facts(preprocessor: nn.Module) -> tuple:
    """Everything that decides how a picture becomes an input."""
    # Read once: reading buffers makes the host wait for an accelerator.
    if preprocessor not in _FACTS:
        mean, std = _statistics(preprocessor, torch.zeros(()))
        _FACTS[preprocessor] = (
            mean.flatten().tolist(),
            std.flatten().tolist(),
            _flipped(preprocessor),
            float(getattr(preprocessor, 'pad_value', 0)),
        )
    return _FACTS[preprocessor]
