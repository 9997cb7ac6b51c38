"""Results as Markdown."""

from collections import Counter
from collections.abc import Iterable
from statistics import mean, stdev

from .pairs import (
    Group,
    difference,
    groups,
    in_group,
    reference_runs,
    runs_of,
    unlike,
    values_of,
)
from .records import DONE, Record
from .stats import Difference

NOTE = (
    'mAP and AP50 in per cent: mean +- sample standard deviation over the '
    'seeds. Weights: what the task and the distillation loss are multiplied '
    'by, mean over the logged iterations of the last epoch and over the seeds.'
)
NOTE_REFERENCE = (
    'Difference: mAP minus that of `{}` with the same seed, mean over the '
    "pairs, with the 95 % interval of Student's t; each by itself, not "
    'corrected for the number of arms. The largest difference stands first: '
    'means over different seeds cannot be compared.'
)


def report_text(
    title: str, records: list[Record], reference: str | None = None
) -> str:
    """The whole report without pictures.

    Args:
        title (str): First line.
        records (list[Record]): One a run.
        reference (str, optional): Arm that the others are compared with.

    Raises:
        ValueError: If there is no such arm, or nothing at all.
    """
    if not records:
        raise ValueError(f'no results in {title}: expected a line a run.')
    arms = sorted({record.arm for record in records})
    if reference is not None and reference not in arms:
        raise ValueError(f'no arm {reference!r} in the results; got {arms}.')
    parts = [f'# {title}', _origin(records), NOTE]
    if reference is not None:
        parts.append(NOTE_REFERENCE.format(reference))
    for group in groups(records):
        parts.append(f'## {", ".join(group)}')
        parts.append(group_table(records, group, reference))
        if reference is not None:
            parts += unlike_pairs(records, group, reference)
    remarks = [
        (record.name, record.status, one_line(record.reason))
        for record in records
        if record.reason or record.status != DONE
    ]
    if remarks:
        parts.append('## Failed, skipped, remarkable')
        parts.append(markdown_table(('run', 'status', 'reason'), remarks))
    return '\n\n'.join(parts) + '\n'


def group_table(
    records: list[Record], group: Group, reference: str | None
) -> str:
    """One row an arm, the largest difference or else the highest mAP first,
    arms without a result last."""
    header = ['arm', 'epochs', 'mAP', 'AP50', 'seeds']
    if reference is not None:
        header += ['difference', '95 % interval', 'pairs']
    header += ['w task', 'w KD']
    others = {}
    if reference is not None:
        others = reference_runs(records, group, reference)
    mine = in_group(records, group)
    rows = []
    for arm in {record.arm for record in mine}:
        runs = runs_of(mine, group, arm)
        values = list(values_of(runs).values())
        found = difference(runs, others)
        row = _arm_cells(arm, [r for r in mine if r.arm == arm], runs)
        if reference is not None:
            row += _difference_cells(None if arm == reference else found)
        for name in ('gor_w_task', 'gor_w_kd'):
            row.append(_weight([getattr(r, name) for r in runs.values()]))
        rank = mean(values or [0.0]) if found is None else found.mean
        rows.append(((not values, found is None, -rank), row))
    return markdown_table(header, [row for _, row in sorted(rows)])


def unlike_pairs(
    records: list[Record], group: Group, reference: str
) -> list[str]:
    """A warning for each arm whose pairs differ in more than the arm."""
    others = reference_runs(records, group, reference)
    mine = in_group(records, group)
    warnings = []
    for arm in sorted({record.arm for record in mine}):
        found = unlike(runs_of(mine, group, arm), others)
        if found:
            warnings.append(
                f'`{arm}` and `{reference}` are not alike: {"; ".join(found)}.'
            )
    return warnings


def _arm_cells(
    arm: str, every: list[Record], runs: dict[int, Record]
) -> list[str]:
    """Name, epochs, mAP, AP50, seeds."""
    ends: dict[str, list[str]] = {}
    for run in sorted(every, key=lambda r: r.seed):
        word = '' if run.status == DONE else f'{run.status} '
        ends.setdefault(word, []).append(str(run.seed))
    seeds = [word + ' '.join(s) for word, s in sorted(ends.items())]
    points = [100 * r.AP50 for r in runs.values() if r.AP50 is not None]
    return [
        arm,
        '/'.join(str(e) for e in sorted({r.epochs for r in every})),
        spread(list(values_of(runs).values())),
        spread(points),
        ', '.join(seeds),
    ]


def _difference_cells(found: Difference | None) -> list[str]:
    if found is None:
        return ['-', '-', '-']
    interval = '-'
    if found.half_width is not None:
        low = found.mean - found.half_width
        interval = f'{low:+.1f} to {found.mean + found.half_width:+.1f}'
    return [f'{found.mean:+.1f}', interval, str(found.pairs)]


def spread(values: list[float], digits: int = 1) -> str:
    """'39.1' for one value, '39.1 +- 0.4' (sample deviation) for several,
    '-' for none."""
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.{digits}f}'
    return f'{mean(values):.{digits}f} +- {stdev(values):.{digits}f}'


def _weight(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f'{mean(known):.3g}' if known else '-'


def _origin(records: list[Record]) -> str:
    """How many runs, of which code, on which devices."""
    counts = {
        status: sum(record.status == status for record in records)
        for status in ('done', 'failed', 'skipped')
    }
    trained = [record for record in records if record.status != 'skipped']
    text = ', '.join(f'{number} {name}' for name, number in counts.items())
    commits = sorted({record.commit for record in trained})
    devices = Counter(record.device for record in trained)
    counted = [f'{name} ({count} runs)' for name, count in devices.items()]
    return (
        f'{len(records)} runs: {text}. Commits: {", ".join(commits)}. '
        f'Devices: {"; ".join(sorted(counted))}.'
    )


def one_line(text: str) -> str:
    """Lines joined, and nothing that would end a Markdown cell."""
    return ' / '.join(text.splitlines()).replace('|', '\\|')


def markdown_table(
    header: Iterable[str], body: Iterable[Iterable[str]]
) -> str:
    """A table whose columns are aligned as plain text, too."""
    lines = [list(header), *(list(row) for row in body)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(line, widths)) + ' |'
        for line in lines
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([text[0], rule, *text[1:]])
