"""1x1 convolutions from the student's channels to the teacher's."""

from torch import Tensor, nn


class Connectors(nn.Module):
    """One 1x1 convolution per level whose numbers of channels differ.

    They are built at once, so that the optimizer and DDP find them.

    Args:
        student_channels (list[int]): One per level.
        teacher_channels (list[int]): One per level.
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
        """Map student features (N, C_s, H, W) to (N, C_t, H, W)."""
        return [level(x) for level, x in zip(self.levels, features)]
