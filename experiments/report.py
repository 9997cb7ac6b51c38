"""Results as Markdown: a table for each data set and bits."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from mmgor.io.atomic_write import write_text

from .plan import FLOAT
from .plots import plot_all
from .records import DONE, read_records

NOTE = (
    'mAP and AP50 in per cent: mean +- sample standard deviation over the '
    'seeds. Weights: the factors of the task and the distillation loss, mean '
    'over the logged iterations of the last epoch and over the seeds.'
)
NOTE_REFERENCE = (
    'Difference: mAP minus that of `{}` with the same seed, mean over the '
    "pairs, with the 95 % interval of Student's t; each by itself, not "
    'corrected for the number of arms. The largest difference stands first: '
    'means over different seeds cannot be compared.'
)
NOTE_GRADIENTS = (
    'Gradients of the weighted task and distillation loss at the shared '
    "features: cosine and norm ratio (geometric mean) over a run's "
    'measurements, cosine over their second half, and the share of them with '
    'a cosine below 0, where the losses pull against each other. Measurements '
    'of losses that were not finite do not count, nor does a ratio where one '
    'weight is 0. Mean +- sample standard deviation over n seeds.'
)
#: Data and bits.
GROUP = ['data', 'bits']


def write_report(
    results: Path, reference: str | None, out: Path
) -> list[Path]:
    """Write tables and plots.

    Args:
        results (Path): ``.jsonl``; curves are read from the runs' folders
            beside it.
        reference (str, optional): Arm that the others are compared with.
        out (Path): ``.md``; plots are written beside it.

    Returns:
        list[Path]: The files.

    Raises:
        ValueError: If there is no such arm or file, or nothing in it.
    """
    if results.suffix != '.jsonl' or not results.is_file():
        raise ValueError(f'expected the .jsonl of a run, got {results}.')
    if out.suffix != '.md' or out.is_dir():
        raise ValueError(f'--out: expected an .md file, got {out}.')
    frame = read_frame(results)
    logs = read_logs(frame, results.with_suffix(''))
    text = report_text(results.stem, frame, reference) + gradient_text(logs)
    images = plot_all(frame, logs, out)
    links = [f'\n![{path.stem}]({path.name})\n' for path in images]
    write_text(out, text + ''.join(links))
    return [out, *images]


def read_frame(results: Path) -> pd.DataFrame:
    """The last line of each run; mAP and AP50 in per cent, NaN where a run
    has no such metric or is not done; runs in order of data and bits."""
    records = read_records(results)
    if not records:
        raise ValueError(f'{results} is empty; expected one line per run.')
    frame = pd.DataFrame([vars(record) for record in records.values()])
    frame['run'] = [record.name for record in records.values()]
    metrics = ['mAP', 'AP50']
    frame[metrics] = frame[metrics].astype(float) * 100
    frame.loc[frame.status != DONE, metrics] = np.nan
    weights = ['gor_w_task', 'gor_w_kd']
    frame[weights] = frame[weights].astype(float)
    order = frame.bits.map(bits_order)
    return frame.iloc[
        sorted(range(len(frame)), key=lambda i: (frame.data[i], order[i]))
    ].reset_index(drop=True)


def bits_order(bits: str) -> tuple:
    """Sort key: float, W2A2, W4A4, W16A16."""
    digits = ''.join(c if c.isdigit() else ' ' for c in bits).split()
    return bits != FLOAT, [int(number) for number in digits], bits


def read_logs(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The training logs of the done runs that have any ``gor_*`` value.

    Args:
        frame (DataFrame): From :func:`read_frame`.
        folder (Path): With one folder per run; runs that were trained
            elsewhere are left out.

    Returns:
        DataFrame: One row per logged iteration: ``data``, ``bits``, ``arm``,
        ``seed``, ``step`` and the logged values.
    """
    logs = []
    for _, run in frame[frame.status == DONE].iterrows():
        found = sorted((folder / run.run).glob('*/vis_data/scalars.json'))
        lines = found[-1].read_text().splitlines() if found else []
        rows = [row for row in map(json.loads, lines) if 'loss' in row]
        if any('gor_w_kd' in row for row in rows):
            place = {key: run[key] for key in (*GROUP, 'arm', 'seed')}
            logs.append(pd.DataFrame(rows).assign(**place))
    return pd.concat(logs, ignore_index=True) if logs else pd.DataFrame()


def report_text(
    title: str, frame: pd.DataFrame, reference: str | None = None
) -> str:
    """The report without plots and gradients.

    Args:
        title (str): First line.
        frame (DataFrame): From :func:`read_frame`.
        reference (str, optional): Arm that the others are compared with.

    Raises:
        ValueError: If there is no such arm.
    """
    arms = sorted(set(frame.arm))
    if reference is not None and reference not in arms:
        raise ValueError(f'no arm {reference!r} in the results; got {arms}.')
    parts = [f'# {title}', _origin(frame), NOTE]
    if reference is not None:
        parts.append(NOTE_REFERENCE.format(reference))
    for group, runs in frame.groupby(GROUP, sort=False):
        parts.append(f'## {", ".join(group)}')
        others = _reference_runs(frame, group, reference)
        parts.append(_group_table(runs, others, reference))
        parts += _unlike_pairs(runs, others, reference)
    odd = frame[(frame.status != DONE) | (frame.reason != '')]
    if len(odd):
        reasons = [
            ' / '.join(reason.splitlines()).replace('|', '\\|')
            for reason in odd.reason
        ]
        rows = zip(odd.run, odd.status, reasons)
        parts.append('## Failed, skipped, remarkable')
        parts.append(markdown(('run', 'status', 'reason'), rows))
    return '\n\n'.join(parts) + '\n'


def _origin(frame: pd.DataFrame) -> str:
    """The number of runs, their commits and devices."""
    counts = [
        f'{sum(frame.status == status)} {status}'
        for status in ('done', 'failed', 'skipped')
    ]
    trained = frame[frame.status != 'skipped']
    devices = trained.device.value_counts().sort_index()
    return (
        f'{len(frame)} runs: {", ".join(counts)}. Commits: '
        f'{", ".join(sorted(set(trained.commit)))}. Devices: '
        + '; '.join(f'{name} ({n} runs)' for name, n in devices.items())
        + '.'
    )


def _reference_runs(
    frame: pd.DataFrame, group: tuple, reference: str | None
) -> pd.DataFrame:
    """The reference arm's done runs at the same bits, or else in float."""
    runs = frame[
        (frame.arm == reference)
        & (frame.data == group[0])
        & (frame.status == DONE)
    ]
    same = runs[runs.bits == group[1]]
    return same if len(same) else runs[runs.bits == FLOAT]


def paired_difference(
    runs: pd.DataFrame, others: pd.DataFrame
) -> tuple[float, float, float, int]:
    """Difference in mAP over the seeds that both have.

    Args:
        runs (DataFrame): With ``seed`` and ``mAP``, NaN for none.
        others (DataFrame): Likewise, of the reference.

    Returns:
        tuple: Mean, low and high end of the 95 % interval of Student's t
        (NaN for one pair), number of pairs (0: all NaN).
    """
    columns = ['seed', 'mAP']
    pairs = runs[columns].merge(others[columns], on='seed').dropna()
    values, reference = pairs['mAP_x'], pairs['mAP_y']
    low = high = np.nan
    if len(pairs) > 1:
        with warnings.catch_warnings():  # of differences that are the same
            warnings.simplefilter('ignore', RuntimeWarning)
            test = ttest_rel(values, reference)
            low, high = test.confidence_interval(0.95)
    return (values - reference).mean(), low, high, len(pairs)


def _group_table(
    runs: pd.DataFrame, others: pd.DataFrame, reference: str | None
) -> str:
    """One row per arm, the largest difference or else the highest mAP first,
    arms without a result last."""
    header = ['arm', 'epochs', 'mAP', 'AP50', 'seeds']
    if reference is not None:
        header += ['difference', '95 % interval', 'pairs']
    rows = []
    for arm, every in runs.groupby('arm'):
        done = every[every.status == DONE]
        epochs = sorted(
            {'-' if pd.isna(e) else f'{e:g}' for e in every.epochs}
        )
        row = [
            arm,
            '/'.join(epochs),
            spread(done.mAP),
            spread(done.AP50),
            _seeds(every),
        ]
        gain, low, high, pairs = paired_difference(done, others)
        if reference is not None and pairs and arm != reference:
            interval = '-' if np.isnan(low) else f'{low:+.1f} to {high:+.1f}'
            row += [f'{gain:+.1f}', interval, str(pairs)]
        elif reference is not None:
            row += ['-', '-', '-']
        for weights in (done.gor_w_task, done.gor_w_kd):
            known = weights.mean()
            row.append('-' if np.isnan(known) else f'{known:.3g}')
        best = gain if pairs else np.nan_to_num(done.mAP.mean())
        rows.append(((not len(done.mAP.dropna()), not pairs, -best), row))
    rows = [row for _, row in sorted(rows)]
    return markdown([*header, 'w task', 'w KD'], rows)


def _seeds(runs: pd.DataFrame) -> str:
    """'0 1, failed 2, no metric 3'."""
    words = runs.status.where(runs.status != DONE, '')
    words = words.mask((words == '') & runs.mAP.isna(), 'no metric')
    parts = [
        f'{word} {" ".join(map(str, sorted(seeds)))}'.strip()
        for word, seeds in runs.seed.groupby(words)
    ]
    return ', '.join(parts)


def _unlike_pairs(
    runs: pd.DataFrame, others: pd.DataFrame, reference: str | None
) -> list[str]:
    """A warning for each arm whose pairs differ in more than the arm: in the
    device, the commit, or because a run that both started from or learned
    from was trained again between them."""
    done = runs[runs.status == DONE].merge(others, on='seed')
    found: dict[str, dict[str, list[str]]] = {}
    for _, pair in done.sort_values(['arm_x', 'seed']).iterrows():
        unlike = [
            what
            for what in ('device', 'commit')
            if pair[f'{what}_x'] != pair[f'{what}_y']
        ]
        unlike += [
            f'weights of {name}'
            for name, weights in sorted(pair.parents_x.items())
            if pair.parents_y.get(name, weights) != weights
        ]
        for what in unlike:
            seeds = found.setdefault(pair.arm_x, {}).setdefault(what, [])
            seeds.append(str(pair.seed))
    return [
        f'`{arm}` and `{reference}` are not alike: '
        + '; '.join(f'{w} (seeds {", ".join(s)})' for w, s in what.items())
        + '.'
        for arm, what in found.items()
    ]


def gradient_text(logs: pd.DataFrame) -> str:
    """A table for each data set and bits, the largest cosine first; '' where
    nothing was measured.

    Args:
        logs (DataFrame): From :func:`read_logs`.
    """
    if 'gor_grad_cosine' not in logs:
        return ''
    finite = logs[np.isfinite(logs.gor_grad_cosine)]
    runs = finite.groupby([*GROUP, 'arm', 'seed'], sort=False)
    table = runs.apply(_gradient_values, include_groups=False).reset_index()
    parts = [f'{NOTE_GRADIENTS} {len(table)} runs with a log here have them.']
    for group, mine in table.groupby(GROUP, sort=False):
        rows = []
        for arm, each in mine.groupby('arm'):
            values = each.drop(columns=[*GROUP, 'arm', 'seed'])
            cells = [spread(values[name], 2) for name in values]
            row = [arm, *cells, str(len(each))]
            rows.append((-each.cosine.mean(), row))
        parts.append(f'### Gradients: {", ".join(group)}')
        header = ['arm', *values, 'n']
        parts.append(markdown(header, [row for _, row in sorted(rows)]))
    return '\n' + '\n\n'.join(parts) + '\n'


def _gradient_values(log: pd.DataFrame) -> pd.Series:
    """Of one run's measurements with a finite cosine."""
    cosines, ratios = log.gor_grad_cosine, log.gor_grad_ratio
    ratios = ratios[(ratios > 0) & np.isfinite(ratios)]
    return pd.Series(
        {
            'cosine': cosines.mean(),
            'second half': cosines.iloc[len(cosines) // 2 :].mean(),
            'below 0': (cosines < 0).mean(),
            'KD / task': np.exp(np.log(ratios).mean()),
        }
    )


def spread(values: pd.Series, digits: int = 1) -> str:
    """'39.1' for one value, '39.1 +- 0.4' (sample deviation) for several,
    '-' for none; NaN does not count."""
    known = list(values.dropna())
    if len(known) < 2:
        return f'{known[0]:.{digits}f}' if known else '-'
    # Exact: pandas rounds on the way, which shows where a mean is 7.05.
    return f'{mean(known):.{digits}f} +- {stdev(known):.{digits}f}'


def markdown(header: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A table whose columns are aligned as plain text, too."""
    lines = [list(header), *(list(row) for row in body)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(line, widths)) + ' |'
        for line in lines
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([text[0], rule, *text[1:]])
