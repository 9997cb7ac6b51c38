"""Which step sizes still move between two checkpoints."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgor.io.checkpoint import is_deployed

#: A step size that changed by more than this still moves.
MOVING = 0.05
# Parameters of quantizers that are positive, and not logarithms already.
_POSITIVE = ('alpha',)


@dataclass(frozen=True)
class ScaleChange:
    """How the step sizes of one quantizer changed.

    Attributes:
        name (str): Path of the quantizer.
        mean (float): Mean change of their logarithms. 0.1 is a growth by
            10.5 %, -0.1 a shrinkage by 9.5 %.
        most (float): Largest absolute change of a logarithm.
        count (int): Number of step sizes.
    """

    name: str
    mean: float
    most: float
    count: int


def scale_changes(
    before: dict[str, Any], after: dict[str, Any]
) -> list[ScaleChange]:
    """The changes of all learned step sizes, the largest first.

    Args:
        before (dict[str, Tensor]): State dict of the earlier checkpoint.
        after (dict[str, Tensor]): State dict of the later one. Quantizers
            that only one has are left out.
    """
    found = []
    for key, new in after.items():
        old = before.get(key)
        logs = [_logarithm(key, value) for value in (old, new)]
        if old is None or logs[0] is None or logs[1] is None:
            continue
        if logs[0].shape == logs[1].shape and is_deployed(key):
            change = logs[1] - logs[0]
            found.append(
                ScaleChange(
                    key.rpartition('.')[0],
                    change.mean().item(),
                    change.abs().max().item(),
                    change.numel(),
                )
            )
    return sorted(found, key=lambda each: -each.most)


def _logarithm(key: str, value: Any) -> Tensor | None:
    if not isinstance(value, Tensor) or '_quantizer.' not in key:
        return None
    name = key.rpartition('.')[2]
    if name == 'log_scale':
        return value.float().reshape(-1)
    if name in _POSITIVE and bool((value > 0).all()):
        return torch.log(value.float()).reshape(-1)
    return None
