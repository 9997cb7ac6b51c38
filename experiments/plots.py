"""Results as plots."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
import seaborn as sns

from mmgor.io.atomic_write import writing

from .plan import FLOAT
from .records import DONE

_WEIGHTS = {
    'gor_w_task': 'weight of the task loss',
    'gor_w_kd': 'weight of the distillation loss',
}
_GRADIENTS = {
    'gor_grad_cosine': 'cosine of the gradients',
    'gor_grad_ratio': 'norm ratio KD / task',
}


def plot_all(frame: pd.DataFrame, logs: pd.DataFrame, out: Path) -> list[Path]:
    """Draw what there is data for, as ``<report>_<name>.png``.

    Args:
        frame (DataFrame): From :func:`experiments.report.read_frame`.
        logs (DataFrame): From :func:`experiments.report.read_logs`.
        out (Path): The report.

    Returns:
        list[Path]: The images.
    """
    done = frame[(frame.status == DONE) & frame.mAP.notna()]
    done = done.assign(group=done.data + ', ' + done.bits)
    grids = dict(
        map=_maps(done),
        bits=_bits(done),
        weights=_curves(logs, _WEIGHTS),
        gradients=_curves(logs, _GRADIENTS),
    )
    paths = []
    # No window, wherever this runs.
    with mpl.rc_context({'backend': 'agg'}):
        for name, grid in grids.items():
            if grid is not None:
                paths.append(out.with_name(f'{out.stem}_{name}.png'))
                with writing(paths[-1]) as part:
                    grid.savefig(part, dpi=110)
                mpl.pyplot.close(grid.figure)
    return paths


def _maps(done: pd.DataFrame) -> sns.FacetGrid | None:
    """One point per seed, a bar at the mean; the best arm first."""
    if done.empty:
        return None
    arms = done.groupby('group', sort=False).arm.nunique()
    heights = 1 + 0.25 * arms
    means = done.groupby(['group', 'arm']).mAP.transform('mean')
    done = done.assign(mean=means).sort_values('mean', ascending=False)
    grid = sns.catplot(
        done,
        x='mAP',
        y='arm',
        row='group',
        row_order=list(arms.index),
        hue='seed',
        palette='tab10',
        jitter=False,
        alpha=0.7,
        sharey=False,
        sharex=False,
        facet_kws=dict(gridspec_kws=dict(height_ratios=heights)),
        height=heights.mean(),
        aspect=7 / heights.mean(),
    )
    grid.map(
        sns.pointplot,
        'mAP',
        'arm',
        errorbar=None,
        linestyle='none',
        marker='|',
        color='black',
        order=None,
    )
    grid.set_titles('{row_name}').set(xlabel='mAP in per cent', ylabel='')
    return grid.tight_layout()


def _bits(done: pd.DataFrame) -> sns.FacetGrid | None:
    """mAP against bits, for arms that have several on one data set: lines
    through the means, bars for the sample deviation."""
    several = done[done.bits != FLOAT]
    counts = several.groupby(['data', 'arm']).bits.transform('nunique')
    several = several[counts > 1]
    if several.empty:
        return None
    grid = sns.relplot(
        several,
        kind='line',
        x='bits',
        y='mAP',
        hue='arm',
        row='data',
        errorbar='sd',
        err_style='bars',
        marker='o',
        facet_kws=dict(sharex=False, sharey=False),
        height=4,
        aspect=1.5,
    )
    return grid.set_titles('{row_name}').set_axis_labels(
        'bits of weights and activations', 'mAP in per cent'
    )


def _curves(
    logs: pd.DataFrame, labels: dict[str, str]
) -> sns.FacetGrid | None:
    """A row of panels for each data set and bits, a line per run."""
    keys = [key for key in labels if key in logs]
    if not keys:
        return None
    place = ['data', 'bits', 'arm', 'seed', 'step']
    long = logs.melt(place, keys, 'key').dropna(subset='value')
    grid = sns.relplot(
        long.assign(group=long.data + ', ' + long.bits),
        kind='line',
        x='step',
        y='value',
        hue='arm',
        units='seed',
        estimator=None,
        row='group',
        col='key',
        facet_kws=dict(sharex='row', sharey=False),
        height=3.6,
        aspect=1.6,
    )
    for (group, key), axis in grid.axes_dict.items():
        axis.set(title=group, ylabel=labels[key], xlabel='iteration')
        axis.grid(alpha=0.3)
        # All others are factors; a cosine may be negative.
        if key != 'gor_grad_cosine':
            axis.set_yscale('log')
    return grid
