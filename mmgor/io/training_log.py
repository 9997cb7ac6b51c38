"""Read what a training logged: mmengine's ``scalars.json``."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Charts of what a GoRDetector logs: title, y label, logarithmic,
#: {key: label}. Keys per teacher are in :func:`teacher_keys`.
GOR_PANELS: list[tuple[str, str, bool, dict[str, str]]] = [
    (
        'Effective weights',
        'weight',
        False,
        {'gor_w_task': 'task', 'gor_w_kd': 'distillation'},
    ),
    (
        'Raw losses',
        'loss',
        True,
        {'gor_raw_task': 'task', 'gor_raw_kd': 'distillation'},
    ),
    (
        'Trainable scalars',
        'theta',
        False,
        {
            'gor_theta_task': 'theta task',
            'gor_theta_kd': 'theta distillation',
            'gor_distance': 'distance to equilibrium',
        },
    ),
    (
        'Gradients at the shared features',
        'value',
        False,
        {
            'gor_grad_ratio': 'norm ratio KD / task',
            'gor_grad_cosine': 'cosine',
        },
    ),
]


@dataclass(frozen=True)
class TrainingLog:
    """What a training logged, in its order.

    Attributes:
        records (list[dict]): Of training iterations, with ``loss``,
            ``step`` (the iteration) and all that was logged.
        evaluations (list[dict]): Of evaluations: metrics and ``step``, in
            the unit below.
        unit (str): 'epoch' or 'iteration'.
    """

    records: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    unit: str


def read_scalars(path: Path) -> list[dict[str, Any]]:
    """Read a ``scalars.json``, which has one JSON object per line.

    A last line without its end is left out: a run that was killed has not
    finished it.

    Args:
        path (Path): The file.

    Returns:
        list[dict]: One record per line.

    Raises:
        ValueError: If a line is not a JSON object with a step.
    """
    text = path.read_text(encoding='utf-8', errors='replace')
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith('\n'):
        lines.pop()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict) or 'step' not in record:
            raise ValueError(
                f'{path}, line {number}: expected a JSON object with a step, '
                f'as in vis_data/scalars.json, got {line[:80]!r}; remove the '
                'line.'
            )
        records.append(record)
    return records


def read_training_log(paths: Iterable[Path]) -> TrainingLog:
    """The log of a training that may have been stopped and resumed.

    Each start of a training writes a file of its own. From its first
    iteration on, a later file replaces an earlier one. Evaluations alone
    count if nothing was trained.

    Args:
        paths (Iterable[Path]): ``scalars.json`` of each start, oldest first.

    Raises:
        ValueError: See :func:`read_scalars`.
    """
    kept: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    for path in paths:
        added = read_scalars(path)
        steps = [record['step'] for record in added if _is_training(record)]
        if not steps:
            alone = added
            continue
        overlap = [
            number
            for number, record in enumerate(kept)
            if _is_training(record) and record['step'] >= steps[0]
        ]
        kept = kept[: overlap[0] if overlap else None] + added
    kept = kept or alone
    records = [record for record in kept if _is_training(record)]
    found, iteration = [], 0
    for record in kept:
        if _is_training(record):
            iteration = record['step']
        else:
            found.append((record, iteration))
    own = [record['step'] for record, _ in found]
    rising = all(a < b for a, b in zip([0, *own], own))
    if rising and all('epoch' in record for record in records):
        return TrainingLog(records, [record for record, _ in found], 'epoch')
    evaluations = [dict(record, step=step) for record, step in found]
    return TrainingLog(records, evaluations, 'iteration')


def _is_training(record: dict[str, Any]) -> bool:
    return 'loss' in record


def main_metric(evaluations: list[dict[str, Any]]) -> str | None:
    """Name of the metric that tells how good a detector is: the mAP of its
    boxes, else another mAP, else None."""
    names = list(dict.fromkeys(key for each in evaluations for key in each))
    maps = [name for name in names if name.endswith('mAP')]
    boxes = [name for name in maps if name.endswith('bbox_mAP')]
    return next(iter([*boxes, *maps]), None)


def teacher_keys(
    records: list[dict[str, Any]], keys: dict[str, str]
) -> dict[str, str]:
    """Keys logged per teacher, such as ``gor_w_kd_<teacher>``.

    Args:
        records (list[dict]): From :func:`read_scalars`.
        keys (dict[str, str]): Those of a panel in :data:`GOR_PANELS`.

    Returns:
        dict[str, str]: Key -> teacher, for each of ``keys`` that has some.
    """
    prefixes = tuple(f'{key}_' for key in keys if key.endswith('_kd'))
    found = {k for record in records for k in record if k.startswith(prefixes)}
    return {key: key.partition('_kd_')[2] for key in sorted(found)}
