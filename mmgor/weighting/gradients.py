"""Size and direction of the two losses' gradients at shared features."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine import dist
from torch import Tensor, nn

# Small gradients would be rounded to 0 in half precision, which autocast may
# use in the head whatever the features' dtype; large ones, above 16, overflow
# with the first factor and are measured with the second. Powers of two: exact.
SCALES = (4096.0, 1.0)


class GradientStats(NamedTuple):
    """The two losses' gradients at the shared features, over all ranks.

    With two losses this is their whole Gram matrix, and every combination of
    the gradients that gradient surgery can ask for follows from it.

    Attributes:
        norms (Tensor): Of task and distillation, shape (2, ); not finite
            where a gradient overflowed.
        cosine (Tensor): Of the angle between them, shape ().
    """

    norms: Tensor
    cosine: Tensor


def gradient_stats(
    task: Tensor, kd: Tensor, shared: Sequence[Tensor]
) -> GradientStats:
    """What :func:`measure_gradients` finds."""
    return measure_gradients(task, kd, shared)[0]


def measure_gradients(
    task: Tensor, kd: Tensor, shared: Sequence[Tensor]
) -> tuple[GradientStats, bool]:
    """Norms and cosine of d task / d shared and d kd / d shared.

    Costs one more backward pass through what lies between the features and
    the losses (the head), for each loss, and another where the scaled
    gradient overflows in half precision. Parameters get no gradient, so DDP
    notices nothing.

    Args:
        task (Tensor): Scalar with a graph to ``shared``.
        kd (Tensor): Scalar with a graph to ``shared``.
        shared (Sequence[Tensor]): Features of any shapes.

    Returns:
        tuple[GradientStats, bool]: Norms of shape (2, ) and the cosine, shape
        (), both the mean over ranks; and whether the norms are finite, for
        which the host waits once.

    Raises:
        ValueError: If ``shared`` is empty or no list of tensors, or a loss
            does not depend on it.
    """
    for x in shared:
        if not isinstance(x, Tensor):
            raise ValueError(
                'gradient_tap gives no feature maps: expected tensors, as '
                f"from gradient_tap='neck', got a {type(x).__name__}."
            )
    shared = [x for x in shared if x.requires_grad]
    if not shared:
        raise ValueError(
            'gradients were to be measured, but no shared features with a '
            "gradient were given; expected gradient_tap='neck' or another "
            'trained module before the head.'
        )
    losses = task, kd
    vectors = [_flat_gradient(loss * SCALES[0], shared) for loss in losses]
    norms = _mean_norms(vectors, SCALES[0])
    # The one wait for the host: all ranks that read a mean measure again
    # together, as collectives in the head's backward pass (SyncBN) ask for.
    overflown = _not_finite(norms)
    for i in overflown:
        vectors[i] = _flat_gradient(losses[i] * SCALES[1], shared)
        norms[i] = _mean_norms([vectors[i]], SCALES[1])[0]
    # Unit vectors first: an epsilon on the norms would depend on units.
    tiny = torch.finfo(torch.float32).tiny
    units = [nn.functional.normalize(x, dim=0, eps=tiny) for x in vectors]
    cosine = units[0] @ units[1]
    dist.all_reduce(cosine, 'mean')
    finite = not overflown or not _not_finite(norms)
    return GradientStats(norms, cosine), finite


def _mean_norms(vectors: list[Tensor], scale: float) -> Tensor:
    """Of scaled gradients, the mean over all ranks, shape (n, )."""
    norms = torch.stack([x.norm() for x in vectors]) / scale
    dist.all_reduce(norms, 'mean')
    return norms


def _not_finite(norms: Tensor) -> list[int]:
    """Where they are not."""
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
            'features; choose a gradient_tap that both KD heads and the task '
            'use, e.g. the neck.'
        )
    return torch.cat(
        [
            (torch.zeros_like(x) if g is None else g).flatten().float()
            for x, g in zip(shared, gradients)
        ]
    )
