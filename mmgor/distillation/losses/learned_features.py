"""Feature losses with parameters of their own: masks, attention, weights.

The parameters are in the student's state dict, under ``kd_heads.``, and are
trained with it; publishing strips them. A KD head builds one loss per level
and passes the level's number of channels. Feature maps have the shape (N, C,
H, W). M is the number of masks. P is the number of elements of a mask: C
channels, or H * W positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.io.config_values import integer, number
from mmgor.registry import MODELS

EPS = 1e-6


def drop_positions(features: Tensor, noise: Tensor, ratio: float) -> Tensor:
    """Set the features to 0 at the positions where ``noise < ratio``.

    Source: Yang et al., ECCV 2022, eq. 2.

    Args:
        features (Tensor): Shape (N, C, H, W).
        noise (Tensor): Uniform in [0, 1), shape (N, 1, H, W).
        ratio (float): Expected fraction of dropped positions.

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    return features * (noise >= ratio)


def cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q^T K / sqrt(D)) V: each position gathers values from all.

    Args:
        query (Tensor): Shape (N, D, H, W).
        key (Tensor): Shape (N, D, H, W).
        value (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    width = max(query.shape[1], value.shape[1])
    # One head, channels last, and the same width for all three. Otherwise no
    # fused kernel applies, and the (HW, HW) matrix is kept for backward.
    q, k, v = (
        F.pad(x.flatten(2).transpose(1, 2), (0, width - x.shape[1]))
        .contiguous()
        .unsqueeze(1)
        for x in (query, key, value)
    )
    scale = query.shape[1] ** -0.5
    gathered = F.scaled_dot_product_attention(q, k, v, scale=scale)
    gathered = gathered.squeeze(1)[..., : value.shape[1]]
    return gathered.transpose(1, 2).reshape(value.shape)


def channel_masks(fused: Tensor, units: Tensor) -> Tensor:
    """Channel masks: sigmoid(u_m * mean of channel c over all positions).

    Args:
        fused (Tensor): Shape (N, C, H, W).
        units (Tensor): u, shape (M, 1).

    Returns:
        Tensor: In (0, 1), shape (N, M, C).
    """
    return torch.sigmoid(units * fused.mean((2, 3))[:, None])


def spatial_masks(fused: Tensor, units: Tensor) -> Tensor:
    """Spatial masks: sigmoid(u_m . features at position p).

    Args:
        fused (Tensor): Shape (N, C, H, W).
        units (Tensor): u, shape (M, C).

    Returns:
        Tensor: In (0, 1), shape (N, M, H * W).
    """
    return torch.sigmoid(units @ fused.flatten(2))


def masked_mean(values: Tensor, masks: Tensor) -> Tensor:
    """Mean of ``values`` weighted by each mask, then over masks and images.

    Each mask is divided by its sum, so that a factor on it has no effect.

    Args:
        values (Tensor): Shape (N, P).
        masks (Tensor): Not negative, shape (N, M, P).

    Returns:
        Tensor: Scalar.
    """
    total = masks.sum(-1).clamp(min=EPS)
    return ((masks * values[:, None]).sum(-1) / total).mean()


def dice_overlap(masks: Tensor) -> Tensor:
    """Dice coefficient 2 a.b / (a.a + b.b), averaged over pairs of masks.

    Args:
        masks (Tensor): Shape (N, M, P), M > 1.

    Returns:
        Tensor: Scalar in [0, 1]; 1 if all masks are the same.
    """
    products = masks @ masks.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    sums = squares[:, :, None] + squares[:, None]
    dice = 2 * products / sums.clamp(min=EPS)
    count = masks.shape[1]
    different = ~torch.eye(count, dtype=torch.bool, device=masks.device)
    return (dice * different).sum((1, 2)).mean() / (count * (count - 1))


def position_weights(logits: Tensor) -> Tensor:
    """Softmax over the positions of each channel, times their number.

    The mean weight of a channel is 1, whatever the logits.

    Args:
        logits (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    flat = logits.flatten(2)
    return (flat.softmax(-1) * flat.shape[-1]).reshape(logits.shape)


def divergence_from_equal(logits: Tensor) -> Tensor:
    """KL(w / P || uniform), with w = :func:`position_weights` of the logits.

    It is averaged over images and channels.

    Args:
        logits (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Scalar, not negative.
    """
    log_p = logits.flatten(2).log_softmax(-1)
    uniform = torch.full_like(log_p, 1 / log_p.shape[-1]).log()
    return (log_p.exp() * (log_p - uniform)).sum(-1).mean()


def steer(loss: Tensor, penalty: Tensor) -> Tensor:
    """Add the gradient of a penalty to a loss, but not its value.

    The value is that of ``loss``. The gradient is that of loss * (ln loss +
    penalty) with the first factor held fixed. Parameters that weigh the loss
    thus descend ln(loss) + penalty, whatever the unit of the loss, and the
    value stays 0 where student and teacher agree.

    Args:
        loss (Tensor): Scalar, not negative.
        penalty (Tensor): Scalar without gradient to the student.

    Returns:
        Tensor: Scalar.
    """
    return loss + loss.detach() * (penalty - penalty.detach())


@MODELS.register_module()
class MGDLoss(nn.Module):
    """Masked generative distillation (Yang et al., ECCV 2022, eq. 2-4).

    Random positions of the student's features are set to 0, and a generator
    (3x3 convolution, ReLU, 3x3 convolution) predicts the teacher's features
    from the rest. The loss is the mean squared error of that prediction; the
    paper sums the squares and multiplies by 2e-5. It is not 0 for a student
    equal to the teacher.

    Args:
        channels (int): C, number of channels of the teacher.
        ratio (float): Fraction of the positions that is dropped, in [0, 1).
            The paper has 0.65 for one-stage and 0.45 for two-stage detectors.

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
            'it is the fraction of positions that is dropped',
        )
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare features of shape (N, C, H, W) each; return a scalar."""
        noise = torch.rand_like(student[:, :1])
        left = drop_positions(student, noise, self.ratio)
        return (self.generator(left) - teacher).square().mean()


@MODELS.register_module()
class ACAMLoss(nn.Module):
    """Adaptive cooperative masks (ACAM-KD, arXiv 2503.06307).

    Attention with the teacher's features as query and the student's as key
    and value gives fused features Z. M selection units turn Z into channel
    masks sigmoid(u z), where z is the mean of Z over positions, and into
    spatial masks sigmoid(U Z). With D = (T - S)^2, the loss is the mean of D
    weighted by the channel masks plus the mean weighted by the spatial masks.
    The masks also descend their overlap (Dice coefficient), for each of the
    two kinds, so that they differ from each other.

    It is simpler than the paper. Each mask is divided by its sum and weighs D
    once, so that it cannot reduce the loss by going to 0. The overlap adds a
    gradient in units of the loss, but no value (:func:`steer`). The student
    gets no gradient through the masks, so that it cannot move them instead of
    learning.

    Args:
        channels (int): C, number of channels of the teacher.
        num_masks (int): M, number of masks of each kind, at least 2. The
            paper has 6 for detection.

    Raises:
        ValueError: If an argument is out of range.
    """

    needs_channels = True

    def __init__(self, channels: int, num_masks: int = 6) -> None:
        super().__init__()
        channels = integer('channels', channels, 1)
        num_masks = integer(
            'num_masks', num_masks, 2, hint='the masks learn to differ'
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
        """Compute the masks from features of shape (N, C, H, W) each.

        Returns:
            tuple[Tensor, Tensor]: Channel masks (N, M, C) and spatial masks
            (N, M, H * W).
        """
        s, t = student.detach(), teacher.detach()
        fused = cross_attention(self.query(t), self.key(s), self.value(s))
        return (
            channel_masks(fused, self.channel_units),
            spatial_masks(fused, self.spatial_units),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare features of shape (N, C, H, W) each; return a scalar."""
        squares = (teacher - student).square()
        channel, spatial = self.masks(student, teacher)
        loss = masked_mean(squares.mean((2, 3)), channel)
        loss = loss + masked_mean(squares.mean(1).flatten(1), spatial)
        overlap = dice_overlap(channel)
        overlap = overlap + dice_overlap(spatial)
        return steer(loss, overlap)


@MODELS.register_module()
class ResidualLoss(nn.Module):
    """Mean squared residual T - S with learned weights of the elements.

    A network R(T, S) (3x3 convolution, ReLU, 1x1 convolution) gives a logit
    for every element. The weights are the softmax of the logits over the
    positions of each channel, times the number of positions. Their mean is 1,
    so that they cannot reduce the loss by going to 0. They could still do so
    by keeping only easy positions; therefore R also descends KL(weights ||
    uniform), in units of the loss (:func:`steer`). With d = (T - S)^2 and the
    loss L, the weights come to rest proportional to exp(-d / L). They are
    smallest for residuals far above the mean, which the student cannot
    follow.

    The weights start equal; the loss then equals that of
    :class:`~.features.FeatureMSELoss`. The form is ours. The student gets no
    gradient through R.

    Args:
        channels (int): C, number of channels of the teacher.

    Raises:
        ValueError: If ``channels`` is not a positive integer.
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
        """Compare features of shape (N, C, H, W) each; return a scalar."""
        logits = self.network(torch.cat([teacher, student], 1).detach())
        weights = position_weights(logits)
        loss = (weights * (teacher - student).square()).mean()
        return steer(loss, divergence_from_equal(logits))
