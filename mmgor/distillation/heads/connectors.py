"""Bring student features to the teacher's channel counts."""

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
