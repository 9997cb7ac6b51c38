"""Plots weights, thetas, losses and gradients over the iterations."""

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmgor.io.atomic_write import writing

# Title, y label, log scale, {key: label}.
PANELS = [
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


def read_scalars(path: Path) -> list[dict]:
    """Read mmengine's ``scalars.json``, which has one JSON object per line.

    Args:
        path (Path): The file.

    Returns:
        list[dict]: The training records with a ``gor_*`` value.

    Raises:
        ValueError: If a line is not a JSON object with a step.
    """
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
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
        if any(key.startswith('gor_') for key in record):
            records.append(record)
    return records


def plot_weight_curves(records: list[dict], out: Path) -> Path:
    """Write the curves as a PNG.

    Args:
        records (list[dict]): From :func:`read_scalars`.
        out (Path): The PNG file.

    Returns:
        Path: ``out``.

    Raises:
        ValueError: If no record has a ``gor_*`` key.
    """
    panels = [
        panel
        for panel in PANELS
        if any(key in record for record in records for key in panel[3])
    ]
    if not panels:
        raise ValueError(
            'no gor_* value to plot; expected keys such as gor_w_task and '
            'gor_w_kd, which a GoRDetector logs in training.'
        )
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows), layout='constrained')
    FigureCanvasAgg(figure)
    for index, (title, label, log, keys) in enumerate(panels, 1):
        axis = figure.add_subplot(rows, columns, index)
        _draw(axis, records, keys | _teacher_keys(records, keys))
        axis.set(title=title, ylabel=label, xlabel='iteration')
        if log:
            axis.set_yscale('log')
        axis.grid(alpha=0.3)
        axis.legend()
    with writing(out) as part:
        figure.savefig(part, dpi=110)
    return out


def _teacher_keys(records: list[dict], keys: dict[str, str]) -> dict[str, str]:
    """Keys of the curves per teacher, such as ``gor_w_kd_<teacher>``, for each
    of ``keys`` that has some."""
    prefixes = tuple(f'{key}_' for key in keys if key.endswith('_kd'))
    found = {k for record in records for k in record if k.startswith(prefixes)}
    return {key: key.partition('_kd_')[2] for key in sorted(found)}


def _draw(axis: Axes, records: list[dict], keys: dict[str, str]) -> None:
    for key, label in keys.items():
        points = [
            (record['step'], record[key])
            for record in records
            if key in record
        ]
        if points:
            axis.plot(*zip(*points), label=label)
