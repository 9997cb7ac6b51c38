"""Feature losses with masks and attention, as pure functions.

Maps are of shape (N, C, H, W); P counts what a mask is laid over: C channels,
or H * W positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis, ICLR 2017, eq. 2): half the
    squared distance of spatial attention maps sum_c F_c^2, each picture's
    brought to length 1; that is, 1 - their cosine.

    The paper's distance is not squared, its authors' code squares: only that
    has a gradient where the two agree.

    Args:
        student (Tensor): Shape (N, C, H, W).
        teacher (Tensor): Shape (N, C', H, W).

    Returns:
        Tensor: Scalar in [0, 1].
    """
    s, t = (
        F.normalize(x.square().sum(1).flatten(1), dim=1)
        for x in (student, teacher)
    )
    return (s - t).square().sum(1).mean() / 2


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
