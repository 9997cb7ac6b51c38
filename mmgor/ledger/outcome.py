"""What came of a training: its numbers, or why there are none."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from .records import DONE, FAILED
from .runs import Run

_LOG_LINES = 5
_LOG_CHARACTERS = 1000
_EXPECTED = "visualizer.vis_backends=[dict(type='LocalVisBackend')]"


class Outcome(NamedTuple):
    """The part of a record that the training decides."""

    status: str
    reason: str
    mAP: float | None = None
    AP50: float | None = None
    gor_w_task: float | None = None
    gor_w_kd: float | None = None


def read_outcome(run: Run, folder: Path, exit_status: int) -> Outcome:
    """Judge a training by what it left.

    It failed if its exit status is not 0, its last logged loss (or loss
    weight) is not finite, or its checkpoint or the last evaluation is missing.
    An evaluation without a metric counts as mAP 0: mmdet logs none where no
    box passes the score threshold.

    Args:
        run (Run): What was trained.
        folder (Path): Its folder, with ``train.log`` and ``*/vis_data``.
        exit_status (int): Of the process; -n: ended by signal n.
    """
    if exit_status:
        return _failed(f'exit status {exit_status}', folder)
    scalars = sorted(folder.glob('*/vis_data/scalars.json'))
    if not scalars:
        return _failed(f'no vis_data/scalars.json; expected {_EXPECTED}')
    lines = scalars[-1].read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    steps = [entry for entry in logged if 'loss' in entry]
    step = steps[-1] if steps else {}
    for name in ('loss', 'gor_w_task', 'gor_w_kd'):
        if not math.isfinite(step.get(name, 0)):
            return _failed(f'{name} {step[name]} at step {step["step"]}')
    if not (folder / run.checkpoint).is_file():
        return _failed(f'no {run.checkpoint}', folder)
    if not logged or 'loss' in logged[-1]:
        return _failed('no evaluation after the last epoch', folder)
    return _evaluated(logged[-1], step)


def _evaluated(metrics: dict[str, Any], step: dict[str, Any]) -> Outcome:
    weights = step.get('gor_w_task'), step.get('gor_w_kd')
    if 'coco/bbox_mAP' not in metrics:
        reason = 'no box passed the score threshold: mAP 0'
        return Outcome(DONE, reason, 0.0, 0.0, *weights)
    values = metrics['coco/bbox_mAP'], metrics['coco/bbox_mAP_50']
    # -1: CocoMetric's word for pictures without labels.
    if not all(math.isfinite(v) and v >= 0 for v in values):
        return _failed(f'mAP {values[0]}, AP50 {values[1]}')
    return Outcome(DONE, '', *values, *weights)


def _failed(reason: str, folder: Path | None = None) -> Outcome:
    """With the end of the log, if a folder is given."""
    if folder is not None:
        text = (folder / 'train.log').read_text(errors='replace')
        lines = [line for line in text.splitlines() if line.strip()]
        tail = '\n'.join(lines[-_LOG_LINES:])[-_LOG_CHARACTERS:]
        reason = f'{reason}:\n{tail or "(the log is empty)"}'
    return Outcome(FAILED, reason)
