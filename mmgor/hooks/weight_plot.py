"""Plots weights, thetas, losses and gradients over the iterations."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmgor.io import training_log
from mmgor.io.atomic_write import writing
from mmgor.io.training_log import GOR_PANELS, teacher_keys


def read_scalars(path: Path) -> list[dict]:
    """The records of ``scalars.json`` with a ``gor_*`` value.

    Args:
        path (Path): The file.

    Returns:
        list[dict]: The training records with a ``gor_*`` value.

    Raises:
        ValueError: See :func:`mmgor.io.training_log.read_scalars`.
    """
    return [
        record
        for record in training_log.read_scalars(path)
        if any(key.startswith('gor_') for key in record)
    ]


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
        for panel in GOR_PANELS
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
        _draw(axis, records, keys | teacher_keys(records, keys))
        axis.set(title=title, ylabel=label, xlabel='iteration')
        if log:
            axis.set_yscale('log')
        axis.grid(alpha=0.3)
        axis.legend()
    with writing(out) as part:
        figure.savefig(part, dpi=110)
    return out


def _draw(axis: Axes, records: list[dict], keys: dict[str, str]) -> None:
    for key, label in keys.items():
        points = [
            (record['step'], record[key])
            for record in records
            if key in record
        ]
        if points:
            axis.plot(*zip(*points), label=label)
