"""Feature losses with parameters of their own: masks, attention, weights.

Their parameters live under ``kd_heads.`` and are trained with the student;
publishing strips them. A KD head builds one loss per level and tells it the
level's channels. Maps are of shape (N, C, H, W); P counts what a mask is laid
over: C channels, or H * W positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgor.io.config_values import integer, number
from mmgor.registry import MODELS

EPS = 1e-6


def drop_positions(features: Tensor, noise: Tensor, ratio: float) -> Tensor:
    """Set the positions where ``noise < ratio`` to 0 (Yang et al., ECCV 2022,
    eq. 2).

    Args:
        features (Tensor): Shape (N, C, H, W).
        noise (Tensor): Uniform in [0, 1), shape (N, 1, H, W).
        ratio (float): Part of the positions that is dropped, in the mean.

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    return features * (noise >= ratio)


def cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q^T K / sqrt(D)) V: each position of ``query`` gathers values
    from all positions.

    Args:
        query (Tensor): Shape (N, D, H, W).
        key (Tensor): Shape (N, D, H, W).
        value (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    width = max(query.shape[1], value.shape[1])
    # One head, channels last and of one width: otherwise no fused kernel
    # takes it, and the (HW, HW) matrix is kept for the backward pass.
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
    """sigmoid(u_m * mean of channel c over all positions).

    Args:
        fused (Tensor): Shape (N, C, H, W).
        units (Tensor): u, shape (M, 1).

    Returns:
        Tensor: In (0, 1), shape (N, M, C).
    """
    return torch.sigmoid(units * fused.mean((2, 3))[:, None])


def spatial_masks(fused: Tensor, units: Tensor) -> Tensor:
    """sigmoid(u_m . features at position p).

    Args:
        fused (Tensor): Shape (N, C, H, W).
        units (Tensor): u, shape (M, C).

    Returns:
        Tensor: In (0, 1), shape (N, M, H * W).
    """
    return torch.sigmoid(units @ fused.flatten(2))


def masked_mean(values: Tensor, masks: Tensor) -> Tensor:
    """Mean of ``values`` with each mask as weights, then over masks and
    pictures. A factor on a mask makes no difference.

    Args:
        values (Tensor): Shape (N, P).
        masks (Tensor): Not negative, shape (N, M, P).

    Returns:
        Tensor: Scalar.
    """
    total = masks.sum(-1).clamp(min=EPS)
    return ((masks * values[:, None]).sum(-1) / total).mean()


def dice_overlap(masks: Tensor) -> Tensor:
    """2 a.b / (a.a + b.b), the mean over all pairs of different masks.

    Args:
        masks (Tensor): Shape (N, M, P), M > 1.

    Returns:
        Tensor: Scalar in [0, 1]; 1 where all masks are the same.
    """
    products = masks @ masks.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    sums = squares[:, :, None] + squares[:, None]
    dice = 2 * products / sums.clamp(min=EPS)
    count = masks.shape[1]
    different = ~torch.eye(count, dtype=torch.bool, device=masks.device)
    return (dice * different).sum((1, 2)).mean() / (count * (count - 1))


def position_weights(logits: Tensor) -> Tensor:
    """softmax over the positions of each channel, times their number: the
    mean of each channel is 1, whatever the logits.

    Args:
        logits (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    flat = logits.flatten(2)
    return (flat.softmax(-1) * flat.shape[-1]).reshape(logits.shape)


def divergence_from_equal(logits: Tensor) -> Tensor:
    """KL(w / count || uniform) of :func:`position_weights`, the mean over
    pictures and channels.

    Args:
        logits (Tensor): Shape (N, C, H, W).

    Returns:
        Tensor: Scalar, not negative.
    """
    log_p = logits.flatten(2).log_softmax(-1)
    uniform = torch.full_like(log_p, 1 / log_p.shape[-1]).log()
    return (log_p.exp() * (log_p - uniform)).sum(-1).mean()


def steer(loss: Tensor, penalty: Tensor) -> Tensor:
    """The value of ``loss``, the gradient of loss * (ln loss + penalty) with
    the factor held fixed.

    What weighs the loss thus descends ln(loss) + penalty, which no unit of
    the loss changes, and the value stays 0 where student and teacher agree.

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
        left = drop_positions(student, noise, self.ratio)
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
    units of the loss (:func:`steer`); the student has no gradient
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
        fused = cross_attention(self.query(t), self.key(s), self.value(s))
        return (
            channel_masks(fused, self.channel_units),
            spatial_masks(fused, self.spatial_units),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Features of shape (N, C, H, W) each to a scalar."""
        squares = (teacher - student).square()
        channel, spatial = self.masks(student, teacher)
        loss = masked_mean(squares.mean((2, 3)), channel)
        loss = loss + masked_mean(squares.mean(1).flatten(1), spatial)
        overlap = dice_overlap(channel)
        overlap = overlap + dice_overlap(spatial)
        return steer(loss, overlap)


@MODELS.register_module()
class ResidualLoss(nn.Module):
    """Mean squared residual T - S under learned weights.

    A network R(T, S) (3x3 convolution, ReLU, 1x1 convolution) gives a logit
    for every element; weights are their softmax over the positions of each
    channel, times the number of positions. So their mean is 1, and they
    cannot win by going to 0. They could still by keeping what is easy alone:
    therefore R also descends KL(weights || equal), in units of the loss
    (:func:`steer`). With d = (T - S)^2 and L the loss the weights
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
        weights = position_weights(logits)
        loss = (weights * (teacher - student).square()).mean()
        return steer(loss, divergence_from_equal(logits))
