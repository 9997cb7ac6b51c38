"""How far the inputs of a layer are from those of its teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor


def relative_error(
    pairs: Sequence[tuple[Tensor, Tensor]], channel_axis: int = 1
) -> Tensor:
    """Squared error of the student over the teacher's variance.

    Args:
        pairs (Sequence[tuple[Tensor, Tensor]]): Student's and teacher's
            tensor of each call of a layer, of the same shape.
        channel_axis (int): Axis of the channels, whose means are no part of
            the variance.

    Returns:
        Tensor: Shape (). The error itself if the teacher is constant.

    Example:
        >>> teacher = torch.tensor([[[[0.0, 2.0]]]])
        >>> relative_error([(teacher + 1, teacher)])
        tensor(1.)
    """
    error, spread = [], []
    for student, teacher in pairs:
        s, t = student.float(), teacher.float()
        others = [i for i in range(t.ndim) if i != channel_axis % t.ndim]
        error.append((s - t).square().sum())
        spread.append((t - t.mean(others, keepdim=True)).square().sum())
    total = torch.stack(spread).sum()
    return torch.stack(error).sum() / torch.where(total > 0, total, 1.0)
