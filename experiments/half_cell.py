"""Class scores of a RetinaNet for a YOLOX student, tried in
experiments/plans/power_yolox.yaml, where it does not help the student. Nothing
here is supported.

Both have their first location at (0, 0), from which they predict boxes. But
YOLOX assigns objects to the middle of its cells (``offset_priors`` in mmdet),
half a stride further right and down, so its scores belong there. How alike the
scores of two float networks are on 100 evaluation images:

python -m experiments.half_cell STUDENT.py STUDENT.pth TEACHER.py TEACHER.pth
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.apis import init_detector
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from mmgor.dense_heads.scores import score_logits
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


@torch.no_grad()
def finest_scores(config: str, checkpoint: str, batches: list) -> Tensor:
    """Logits of the class scores of the finest level, shape (N, K, H, W)."""
    model = init_detector(config, checkpoint, device='cpu')
    outputs = (
        model(**model.data_preprocessor(batch, False), mode='tensor')
        for batch in batches
    )
    return torch.cat([score_logits(model.bbox_head, x)[0] for x in outputs])


def main(student: str, weights: str, *teacher: str) -> None:
    """Print the correlation as it is, and with the teacher's scores moved."""
    register_all_modules()
    loader = dict(Config.fromfile(student).val_dataloader, num_workers=0)
    loader.update(persistent_workers=False, batch_size=20)
    batches = list(islice(Runner.build_dataloader(loader), 5))
    mine = finest_scores(student, weights, batches)
    theirs = finest_scores(*teacher, batches)
    for name, logits in (('as is', theirs), ('moved', half_a_cell_on(theirs))):
        pair = torch.stack([mine, logits]).sigmoid().flatten(1)
        print(f'{name}: {torch.corrcoef(pair)[0, 1]:.2f}')


if __name__ == '__main__':
    main(*sys.argv[1:])
