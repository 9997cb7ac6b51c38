"""The outcome of a training: its numbers, or why there are none."""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from mmgor.io.checkpoint import non_finite_keys, strip_training_keys
from mmgor.io.checkpoint_reader import read_state_dict

from .records import DONE, FAILED

_LOG_LINES = 5
_LOG_CHARACTERS = 1000


class Outcome(NamedTuple):
    """The part of a record that the training decides."""

    status: str
    reason: str
    mAP: float | None = None
    AP50: float | None = None
    gor_w_task: float | None = None
    gor_w_kd: float | None = None


def read_outcome(
    folder: Path, checkpoint: str, exit_status: int = 0
) -> Outcome:
    """Judge a training by the files that it left.

    It failed if its exit status is not 0, its checkpoint is missing or holds
    a weight that is not finite, the last evaluation is missing, or something
    cannot be read. Logged losses are means over steps that may have been
    dropped; they decide nothing.

    An evaluation may have no metric, since mmdet logs none where no box
    passes the score threshold, and CocoMetric gives -1 for images without
    ground truth. Then there is no mAP, and the reason says so.

    Args:
        folder (Path): With ``train.log`` and ``*/vis_data``.
        checkpoint (str): Name of the last weights in it.
        exit_status (int): Of the process; -n: ended by signal n.
    """
    try:
        return _judge(folder, checkpoint, exit_status)
    # Files can be broken in any way, which must not stop the other runs.
    except Exception as error:
        return _failed(f'not readable: {type(error).__name__}: {error}')


def _judge(folder: Path, checkpoint: str, exit_status: int) -> Outcome:
    if exit_status:
        return _failed(f'exit status {exit_status}', folder)
    scalars = sorted(folder.glob('*/vis_data/scalars.json'))
    if not scalars:
        return _failed(
            'no vis_data/scalars.json; expected LocalVisBackend among '
            'visualizer.vis_backends'
        )
    if not (folder / checkpoint).is_file():
        return _failed(f'no {checkpoint}', folder)
    state_dict, _ = read_state_dict(folder / checkpoint)
    broken = non_finite_keys(strip_training_keys(state_dict))
    if broken:
        return _failed(f'{checkpoint}: {broken[0]} is not finite')
    lines = scalars[-1].read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    if not logged or 'loss' in logged[-1]:
        return _failed('no evaluation after the last epoch', folder)
    return _evaluated(logged)


def _evaluated(logged: list[dict[str, Any]]) -> Outcome:
    metrics = logged[-1]
    weights = [_last_mean(logged, w) for w in ('gor_w_task', 'gor_w_kd')]
    # The prefix is that of the config's CocoMetric, by default coco/.
    values = {key.rpartition('/')[2]: value for key, value in metrics.items()}
    found = [values.get(name) for name in ('bbox_mAP', 'bbox_mAP_50')]
    reason = ''
    if None in found:
        names = sorted(set(metrics) - {'time', 'data_time', 'step'})
        reason = (
            f'no metric: expected bbox_mAP, got {names}'
            if names
            else 'no metric: no box passed the score threshold'
        )
    elif -1 in found:
        reason = 'no metric: the evaluation images have no ground truth'
    if reason:
        found = [None, None]
    elif not all(math.isfinite(value) for value in found):
        return _failed(f'mAP {found[0]}, AP50 {found[1]}')
    return Outcome(DONE, reason, *found, *weights)


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
