"""Measures the gradients of the two losses at the shared features."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine import dist
from torch import Tensor, nn

# Autocast may run the head in half precision, whatever the features' dtype.
# There, small gradients would be rounded to 0, so losses are scaled by the
# first factor. A gradient above 16 overflows with it, and is measured again
# with the second. Powers of two scale exactly.
SCALES = (4096.0, 1.0)


class GradientStats(NamedTuple):
    """The two losses' gradients at the shared features, over all ranks.

    For two losses this is the whole Gram matrix of the gradients, from which
    every combination of them can be computed.

    Attributes:
        norms (Tensor): Norm of the task and of the distillation gradient,
            shape (2, ); not finite where a gradient overflowed.
        cosine (Tensor): Cosine of the angle between them, shape ().
    """

    norms: Tensor
    cosine: Tensor


def gradient_stats(
    task: Tensor, kd: Tensor, shared: Sequence[Tensor]
) -> GradientStats:
    """The statistics of :func:`measure_gradients`, without its flag."""
    return measure_gradients(task, kd, shared)[0]


def measure_gradients(
    task: Tensor, kd: Tensor, shared: Sequence[Tensor]
) -> tuple[GradientStats, bool]:
    """Measure d task / d shared and d kd / d shared.

    This costs one more backward pass per loss, from the loss through the head
    down to the features, and another one for a loss whose scaled gradient
    overflows in half precision. Parameters get no gradient, so DDP sees
    nothing of it.

    Args:
        task (Tensor): Task loss, a scalar that depends on ``shared``.
        kd (Tensor): Distillation loss, likewise.
        shared (Sequence[Tensor]): Features of any shapes.

    Returns:
        tuple[GradientStats, bool]: Norms, shape (2, ), and cosine, shape (),
        both averaged over the ranks; and whether the norms are finite. The
        host waits for the device once, to know that.

    Raises:
        ValueError: If ``shared`` is empty or not a sequence of tensors, or a
            loss does not depend on it.
    """
    for x in shared:
        if not isinstance(x, Tensor):
            raise ValueError(
                'gradient_tap is not a module that returns feature maps: '
                "expected tensors, as from gradient_tap='neck', got a "
                f'{type(x).__name__}.'
            )
    shared = [x for x in shared if x.requires_grad]
    if not shared:
        raise ValueError(
            "no shared features with a gradient, at which the two losses' "
            "gradients could be measured; expected gradient_tap='neck' or "
            'another trained module before the head.'
        )
    losses = task, kd
    vectors = [_flat_gradient(loss * SCALES[0], shared) for loss in losses]
    norms = _mean_norms(vectors, SCALES[0])
    # The host waits here, once. All ranks read the same mean, so they measure
    # again together: the head's backward pass may hold collectives (SyncBN).
    overflown = _not_finite(norms)
    for i in overflown:
        vectors[i] = _flat_gradient(losses[i] * SCALES[1], shared)
        norms[i] = _mean_norms([vectors[i]], SCALES[1])[0]
    # Normalised first: an epsilon beside the norms would depend on their unit.
    tiny = torch.finfo(torch.float32).tiny
    units = [nn.functional.normalize(x, dim=0, eps=tiny) for x in vectors]
    cosine = units[0] @ units[1]
    dist.all_reduce(cosine, 'mean')
    finite = not overflown or not _not_finite(norms)
    return GradientStats(norms, cosine), finite


def _mean_norms(vectors: list[Tensor], scale: float) -> Tensor:
    """Norms of scaled gradients, averaged over all ranks, shape (n, )."""
    norms = torch.stack([x.norm() for x in vectors]) / scale
    dist.all_reduce(norms, 'mean')
    return norms


def _not_finite(norms: Tensor) -> list[int]:
    """Indices of the norms that are not finite."""
    sound = torch.isfinite(norms).tolist()
    return [i for i, finite in enumerate(sound) if not finite]


def _flat_gradient(loss: Tensor, shared: Sequence[Tensor]) -> Tensor:
    """d loss / d shared as one vector, in float32."""
    gradients = torch.autograd.grad(
        loss, shared, retain_graph=True, allow_unused=True
    )
    if all(g is None for g in gradients):
        raise ValueError(
            'the task or the distillation loss does not depend on the shared '
            'features; expected a gradient_tap that both use, e.g. '
            "gradient_tap='neck'."
        )
    return torch.cat(
        [
            (torch.zeros_like(x) if g is None else g).flatten().float()
            for x, g in zip(shared, gradients)
        ]
    )
