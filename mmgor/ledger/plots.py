"""Results as pictures."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmgor.hooks import read_scalars
from mmgor.io.atomic_write import writing

from .pairs import groups, in_group, runs_of, values_of
from .plan import FLOAT
from .records import DONE, Record

#: Training records of one run, and what it is.
Curves = list[tuple[Record, list[dict]]]


def read_curves(records: list[Record], folder: Path) -> Curves:
    """Logged ``gor_*`` values of the finished runs that have any.

    Args:
        records (list[Record]): One a run.
        folder (Path): With one folder a run; runs that were trained
            elsewhere are left out.
    """
    curves = []
    for record in records:
        found = sorted((folder / record.name).glob('*/vis_data/scalars.json'))
        if record.status == DONE and found:
            logged = read_scalars(found[-1])
            if logged:
                curves.append((record, logged))
    return curves


def plot_all(records: list[Record], curves: Curves, out: Path) -> list[Path]:
    """Draw what there is something for, as ``<report>_<name>.png``.

    Args:
        records (list[Record]): One a run.
        curves (Curves): From :func:`read_curves`.
        out (Path): The report.

    Returns:
        list[Path]: The pictures.
    """
    done = [record for record in records if record.status == DONE]
    figures = dict(
        map=_plot_maps(done),
        bits=_plot_bits(done),
        weights=_plot_curves(
            curves,
            {
                'gor_w_task': 'weight of the task loss',
                'gor_w_kd': 'weight of the distillation loss',
            },
        ),
        gradients=_plot_curves(
            curves,
            {
                'gor_grad_cosine': 'cosine of the gradients',
                'gor_grad_ratio': 'norm ratio KD / task',
            },
        ),
    )
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(out.with_name(f'{out.stem}_{name}.png'))
            with writing(paths[-1]) as part:
                figure.savefig(part, dpi=110)
    return paths


def _figure(heights: list[float], columns: int) -> tuple[Figure, list]:
    """A figure with a row of panels for each height in inches."""
    figure = Figure((6 * columns, sum(heights)), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        len(heights), columns, squeeze=False, height_ratios=heights
    )
    return figure, list(panels)


def _arms(records: list[Record]) -> list[str]:
    return sorted({record.arm for record in records})


def _colours(arms: list[str]) -> dict[str, tuple]:
    """Ten dark ones, then ten light ones."""
    return {
        arm: colormaps['tab20'](i * 2 % 20 + i // 10 % 2)
        for i, arm in enumerate(arms)
    }


def _plot_maps(done: list[Record]) -> Figure | None:
    """A bar an arm at the mean, a point a seed."""
    if not done:
        return None
    panels = groups(done)
    heights = [
        1 + 0.25 * len(_arms(in_group(done, group))) for group in panels
    ]
    figure, axes = _figure(heights, 1)
    for (axis,), group in zip(axes, panels):
        values = {
            arm: values_of(runs_of(done, group, arm))
            for arm in _arms(in_group(done, group))
        }
        ordered = sorted(values.items(), key=lambda v: mean(v[1].values()))
        for row, (arm, points) in enumerate(ordered):
            centre = mean(points.values())
            axis.plot([centre] * 2, [row - 0.3, row + 0.3], 'k')
            axis.annotate(
                arm,
                (-0.01, row),
                xycoords=('axes fraction', 'data'),
                ha='right',
                va='center',
            )
        for seed in sorted({seed for _, points in ordered for seed in points}):
            rows = [
                i for i, (_, points) in enumerate(ordered) if seed in points
            ]
            maps = [ordered[i][1][seed] for i in rows]
            axis.plot(
                maps, rows, 'o', color=f'C{seed}', alpha=0.6, label=str(seed)
            )
        axis.set(title=', '.join(group), xlabel='mAP in per cent', yticks=[])
        axis.grid(alpha=0.3)
        axis.legend(title='seed', loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def _plot_bits(done: list[Record]) -> Figure | None:
    """mAP against bits, for arms that have several on one data set."""
    panels = {}
    for data in sorted({record.data for record in done}):
        mine = [r for r in done if r.data == data and r.bits != FLOAT]
        bits = {
            arm: {r.bits for r in mine if r.arm == arm} for arm in _arms(mine)
        }
        several = [r for r in mine if len(bits[r.arm]) > 1]
        if several:
            panels[data] = several
    if not panels:
        return None
    heights = [max(4.0, 0.5 + 0.2 * len(_arms(r))) for r in panels.values()]
    figure, axes = _figure(heights, 1)
    for (axis,), runs in zip(axes, panels.values()):
        _draw_bits(axis, runs)
    return figure


def _draw_bits(axis: Axes, runs: list[Record]) -> None:
    """A line an arm through its means, a point a seed; of one data set."""
    ticks = groups(runs)
    for i, (arm, colour) in enumerate(_colours(_arms(runs)).items()):
        found = [
            (x, list(values_of(runs_of(runs, group, arm)).values()))
            for x, group in enumerate(ticks)
        ]
        means = [(x, mean(values)) for x, values in found if values]
        style = ('-', '--', ':')[i // 20 % 3]
        axis.plot(*zip(*means), style, color=colour, label=arm)
        for x, values in found:
            axis.plot([x] * len(values), values, '.', color=colour)
    axis.set(
        title=ticks[0][0],
        xlabel='bits of weights and activations',
        ylabel='mAP in per cent',
        xticks=range(len(ticks)),
        xticklabels=[bits for _, bits in ticks],
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))


def _plot_curves(curves: Curves, keys: dict[str, str]) -> Figure | None:
    """A row of panels for each data and bits, a line a run."""
    shown = [
        (record, logged)
        for record, logged in curves
        if any(key in entry for entry in logged for key in keys)
    ]
    if not shown:
        return None
    runs = [record for record, _ in shown]
    panels = groups(runs)
    colours = _colours(_arms(runs))
    figure, axes = _figure([3.6] * len(panels), len(keys))
    for row, group in zip(axes, panels):
        mine = [(r, log) for r, log in shown if (r.data, r.bits) == group]
        for axis, (key, label) in zip(row, keys.items()):
            _draw(axis, mine, key, colours.__getitem__)
            axis.set(title=', '.join(group), ylabel=label, xlabel='iteration')
            # All others are factors; a cosine may be negative.
            if key != 'gor_grad_cosine':
                axis.set_yscale('log')
            axis.grid(alpha=0.3)
        row[-1].legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def _draw(
    axis: Axes, curves: Curves, key: str, colour: Callable[[str], tuple]
) -> None:
    """One legend entry an arm."""
    named: set[str] = set()
    for record, logged in curves:
        points = [(e['step'], e[key]) for e in logged if key in e]
        if points:
            label = None if record.arm in named else record.arm
            named.add(record.arm)
            axis.plot(*zip(*points), color=colour(record.arm), label=label)
