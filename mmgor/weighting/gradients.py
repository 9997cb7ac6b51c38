"""Size and direction of the two losses' gradients at shared features."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine import dist
from torch import Tensor

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
        GradientStats: Norms of shape (2, ) and the cosine, shape (), both the
        mean over ranks.

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
    (task_norm, task_unit), (kd_norm, kd_unit) = (
        _norm_and_unit(loss, shared) for loss in (task, kd)
    )
    cosine = task_unit @ kd_unit
    dist.all_reduce(cosine, 'mean')
    return GradientStats(torch.stack([task_norm, kd_norm]), cosine)


def _norm_and_unit(
    loss: Tensor, shared: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The gradient's norm over all ranks, and its direction on this one.

    Raises:
        ValueError: If the loss does not depend on ``shared``.
    """
    for scale in SCALES:
        gradient = _flat_gradient(loss * scale, shared)
        norm = gradient.norm() / scale
        dist.all_reduce(norm, 'mean')
        # Not finite on one rank is so in the mean: all measure again, as
        # collectives in the head's backward pass (SyncBN) ask for.
        if torch.isfinite(norm):
            break
    # Unit vectors first: an epsilon on the norms would depend on units.
    tiny = torch.finfo(torch.float32).tiny
    return norm, torch.nn.functional.normalize(gradient, dim=0, eps=tiny)


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
