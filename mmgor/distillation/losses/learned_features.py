"""Feature losses with parameters of their own.

They live under ``kd_heads.`` and are trained with the student; publishing
strips them. A head builds one a level and tells it the level's channels.
"""

import torch
from torch import Tensor, nn

from mmgor.io.config_values import integer, number
from mmgor.registry import MODELS

from . import feature_functional as functional


@MODELS.register_module()
class MGDLoss(nn.Module):
    """Masked generative distillation (Yang et al., ECCV 2022, eq. 2-4).

    Random positions of the student's features are set to 0, and a generator
    (3x3 convolution, ReLU, 3x3 convolution) makes the teacher's out of what
    is left; the loss is their mean squared difference, where the paper sums
    and multiplies by 2e-5. It is not 0 for a student equal to the teacher.

    Args:
        channels (int): C, of the teacher.
        ratio (float): Part of the positions that is dropped, in [0, 1); the
            paper has 0.65 for one-stage and 0.45 for two-stage detectors.

    Raises:
        ValueError: If an argument is out of range.
    """

    needs_channels = True

    def __init__(self, channels: int, ratio: float = 0.65) -> None:
        super().__init__()
        channels = integer('channels', channels, 1)
        self.ratio = number(
            'ratio',
            ratio,
            '[0, 1)',
            'it is the part of the positions that is dropped',
        )
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Features of shape (N, C, H, W) each to a scalar."""
        noise = torch.rand_like(student[:, :1])
        left = functional.drop_positions(student, noise, self.ratio)
        return (self.generator(left) - teacher).square().mean()


@MODELS.register_module()
class ACAMLoss(nn.Module):
    """Adaptive cooperative masks (ACAM-KD, arXiv 2503.06307).

    Attention with the teacher's features as query and the student's as key
    and value gives fused features Z; M selection units turn them into channel
    masks sigmoid(u z), z the mean over positions, and spatial masks
    sigmoid(U Z). With D = (T - S)^2 the loss is the mean of D under the
    channel masks plus that under the spatial masks. The masks also descend
    the overlap (Dice coefficient) of each kind, so that they differ.

    Simplified: a mask divides by its own sum and weighs D once, so that it
    does not win by going to 0; the overlap has no value, only a gradient, in
    units of the loss (:func:`functional.steer`); the student has no gradient
    through the masks, so that it cannot move them instead of learning.

    Args:
        channels (int): C, of the teacher.
        num_masks (int): M of each kind, at least 2; the paper has 6 for
            detection.

    Raises:
        ValueError: If an argument is out of range.
    """

    needs_channels = True

    def __init__(self, channels: int, num_masks: int = 6) -> None:
        super().__init__()
        channels = integer('channels', channels, 1)
        num_masks = integer(
            'num_masks', num_masks, 2, hint='one mask has none to differ from'
        )
        inner = max(1, channels // 2)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.channel_units = nn.Parameter(torch.randn(num_masks, 1))
        self.spatial_units = nn.Parameter(
            torch.randn(num_masks, channels) / channels**0.5
        )

    def masks(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Channel masks (N, M, C) and spatial masks (N, M, H * W)."""
        s, t = student.detach(), teacher.detach()
        fused = functional.cross_attention(
            self.query(t), self.key(s), self.value(s)
        )
        return (
            functional.channel_masks(fused, self.channel_units),
            functional.spatial_masks(fused, self.spatial_units),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Features of shape (N, C, H, W) each to a scalar."""
        squares = (teacher - student).square()
        channel, spatial = self.masks(student, teacher)
        loss = functional.masked_mean(squares.mean((2, 3)), channel)
        loss = loss + functional.masked_mean(
            squares.mean(1).flatten(1), spatial
        )
        overlap = functional.dice_overlap(channel)
        overlap = overlap + functional.dice_overlap(spatial)
        return functional.steer(loss, overlap)


@MODELS.register_module()
class ResidualLoss(nn.Module):
    """Mean squared residual T - S under learned weights.

    A network R(T, S) (3x3 convolution, ReLU, 1x1 convolution) gives a logit
    for every element; weights are their softmax over the positions of each
    channel, times the number of positions. So their mean is 1, and they
    cannot win by going to 0. They could still by keeping what is easy alone:
    therefore R also descends KL(weights || equal), in units of the loss
    (:func:`functional.steer`). With d = (T - S)^2 and L the loss the weights
    rest at w proportional to exp(-d / L), the least for residuals far above
    the mean, which the student cannot follow.

    Weights start equal, where this is FeatureMSELoss. The form is ours. The
    student has no gradient through R.

    Args:
        channels (int): C, of the teacher.

    Raises:
        ValueError: If ``channels`` is no positive int.
    """

    needs_channels = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        channels = integer('channels', channels, 1)
        inner = max(1, channels // 4)
        last = nn.Conv2d(inner, channels, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.network = nn.Sequential(
            nn.Conv2d(2 * channels, inner, 3, padding=1),
            nn.ReLU(inplace=True),
            last,
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Features of shape (N, C, H, W) each to a scalar."""
        logits = self.network(torch.cat([teacher, student], 1).detach())
        weights = functional.position_weights(logits)
        loss = (weights * (teacher - student).square()).mean()
        return functional.steer(loss, functional.divergence_from_equal(logits))
