"""Bring student and teacher features to one shape."""

import torch.nn.functional as F
from torch import Tensor, nn


class Connectors(nn.Module):
    """One 1x1 convolution a level where channel counts differ.

    They exist from construction on, so that optimizer and DDP know them.

    Args:
        student_channels (list[int]): One a level.
        teacher_channels (list[int]): One a level.
    """

    def __init__(
        self, student_channels: list[int], teacher_channels: list[int]
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Identity() if s == t else nn.Conv2d(s, t, 1)
            for s, t in zip(student_channels, teacher_channels)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Student features of shape (N, C_s, H, W) to (N, C_t, H, W)."""
        return [level(x) for level, x in zip(self.levels, features)]


def match_size(teacher: Tensor, student: Tensor) -> Tensor:
    """Resize a teacher map to the student's height and width.

    Shrinking averages, growing interpolates bilinearly.

    Args:
        teacher (Tensor): Shape (N, C, H_t, W_t).
        student (Tensor): Shape (N, C, H_s, W_s).
    """
    size = (student.shape[-2], student.shape[-1])
    if teacher.shape[-2:] == size:
        return teacher
    if teacher.shape[-2] >= size[0] and teacher.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(teacher, size)
    return F.interpolate(teacher, size, mode='bilinear', align_corners=False)
