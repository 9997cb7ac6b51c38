"""What came of a training: its numbers, or why there are none."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from mmgor.io.checkpoint import non_finite_keys, strip_training_keys
from mmgor.io.checkpoint_reader import read_state_dict

from .records import DONE, FAILED
from .runs import Run

_LOG_LINES = 5
_LOG_CHARACTERS = 1000
_EXPECTED = "visualizer.vis_backends=[dict(type='LocalVisBackend')]"
_NO_METRICS = {'time', 'data_time', 'step'}


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

    It failed if its exit status is not 0, its checkpoint is missing or holds
    a weight that is not finite, the last evaluation is missing or has no
    ``coco/bbox_mAP``, or something cannot be read. Logged losses are means
    over steps that may have been dropped; they decide nothing. An evaluation
    without any metric counts as mAP 0: mmdet logs none where no box passes
    the score threshold.

    Args:
        run (Run): What was trained.
        folder (Path): Its folder, with ``train.log`` and ``*/vis_data``.
        exit_status (int): Of the process; -n: ended by signal n.
    """
    try:
        return _judge(run, folder, exit_status)
    # Files can be broken in any way, which must not stop the other runs.
    except Exception as error:
        return _failed(f'not readable: {type(error).__name__}: {error}')


def _judge(run: Run, folder: Path, exit_status: int) -> Outcome:
    if exit_status:
        return _failed(f'exit status {exit_status}', folder)
    scalars = sorted(folder.glob('*/vis_data/scalars.json'))
    if not scalars:
        return _failed(f'no vis_data/scalars.json; expected {_EXPECTED}')
    if not (folder / run.checkpoint).is_file():
        return _failed(f'no {run.checkpoint}', folder)
    broken = _non_finite(folder / run.checkpoint)
    if broken:
        return _failed(f'{run.checkpoint}: {broken} is not finite')
    lines = scalars[-1].read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    if not logged or 'loss' in logged[-1]:
        return _failed('no evaluation after the last epoch', folder)
    return _evaluated(logged)


def _non_finite(checkpoint: Path) -> str | None:
    """The first of the student's weights and buffers that is not finite."""
    state_dict, _ = read_state_dict(checkpoint)
    broken = non_finite_keys(strip_training_keys(state_dict))
    return broken[0] if broken else None


def _evaluated(logged: list[dict[str, Any]]) -> Outcome:
    metrics = logged[-1]
    weights = [_last_mean(logged, w) for w in ('gor_w_task', 'gor_w_kd')]
    if set(metrics) <= _NO_METRICS:
        reason = 'no box passed the score threshold: mAP 0'
        return Outcome(DONE, reason, 0.0, 0.0, *weights)
    if 'coco/bbox_mAP' not in metrics:
        names = sorted(set(metrics) - _NO_METRICS)
        return _failed(f'expected the metric coco/bbox_mAP, got {names}')
    values = metrics['coco/bbox_mAP'], metrics['coco/bbox_mAP_50']
    # -1: CocoMetric's word for pictures without labels.
    if not all(math.isfinite(v) and v >= 0 for v in values):
        return _failed(f'mAP {values[0]}, AP50 {values[1]}')
    return Outcome(DONE, '', *values, *weights)


def _last_mean(logged: list[dict[str, Any]], name: str) -> float | None:
    """Of the logged iterations of the last epoch, without dropped ones.

    A value is one iteration's, and some balancers change it in every one.
    """
    steps = [entry for entry in logged if 'loss' in entry]
    values = [
        entry[name]
        for entry in steps
        if entry.get('epoch') == steps[-1].get('epoch')
        and math.isfinite(entry.get(name, math.nan))
    ]
    return fmean(values) if values else None


def _failed(reason: str, folder: Path | None = None) -> Outcome:
    """With the end of the log, if a folder is given."""
    if folder is not None:
        text = (folder / 'train.log').read_text(errors='replace')
        lines = [line for line in text.splitlines() if line.strip()]
        tail = '\n'.join(lines[-_LOG_LINES:])[-_LOG_CHARACTERS:]
        reason = f'{reason}:\n{tail or "(the log is empty)"}'
    return Outcome(FAILED, reason)
