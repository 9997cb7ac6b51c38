"""Class scores of a RetinaNet for a YOLOX student, tried in
experiments/plans/power_yolox.yaml. Nothing here is supported.

Both have their first location at (0, 0), from which they predict boxes. But
YOLOX assigns objects to the middle of its cells (``offset_priors`` in mmdet),
half a stride further right and down, so its scores belong there.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmgor.distillation import Recorded
from mmgor.distillation.heads.class_base import EPS
from mmgor.distillation.heads.scores import ScoreKDHead
from mmgor.registry import MODELS


def half_a_cell_on(logits: Tensor) -> Tensor:
    """Scores between the locations: the mean probability of each 2 x 2.

    Args:
        logits (Tensor): Shape (N, C, H, W). The last row and column stand
            twice.
    """
    padded = F.pad(logits.sigmoid(), (0, 1, 0, 1), mode='replicate')
    return F.avg_pool2d(padded, 2, stride=1).logit(EPS)


@MODELS.register_module()
class HalfCellScoreKDHead(ScoreKDHead):
    """The teacher's scores, half a cell further right and down.

    The teacher's head must give sigmoid class scores first and no
    centerness, as RetinaHead does.
    """

    def compute(
        self, student: Recorded, teachers: Sequence[Recorded]
    ) -> Tensor:
        return super().compute(student, [_moved(x) for x in teachers])


def _moved(recorded: Recorded) -> Any:
    scores, *rest = recorded.output
    return replace(
        recorded, output=([half_a_cell_on(x) for x in scores], *rest)
    )
