"""Results as Markdown."""

from collections.abc import Iterable
from statistics import mean, stdev

from .plan import FLOAT
from .records import DONE, Record
from .stats import paired_difference

Group = tuple[str, str]
NOTE = (
    'mAP and AP50 in per cent: mean +- sample standard deviation over n '
    'seeds. Weights: what the task and the distillation loss are multiplied '
    'by, mean over the logged iterations of the last epoch and over the seeds.'
)
NOTE_REFERENCE = (
    'Difference: mAP minus that of `{}` with the same seed, mean over the '
    "pairs, with the 95 % interval of Student's t; each by itself, not "
    'corrected for the number of arms.'
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
        ValueError: If there is no such arm.
    """
    arms = sorted({record.arm for record in records})
    if reference is not None and reference not in arms:
        raise ValueError(f'no arm {reference!r} in the results; got {arms}.')
    parts = [f'# {title}', _origin(records), NOTE]
    if reference is not None:
        parts.append(NOTE_REFERENCE.format(reference))
    done = [record for record in records if record.status == DONE]
    for data, bits in groups(done):
        parts.append(f'## {data}, {bits}')
        parts.append(group_table(done, (data, bits), reference))
    remarks = [
        (record.name, record.status, one_line(record.reason))
        for record in records
        if record.reason
    ]
    if remarks:
        parts.append('## Failed, skipped, remarkable')
        parts.append(markdown_table(('run', 'status', 'reason'), remarks))
    return '\n\n'.join(parts) + '\n'


def groups(records: Iterable[Record]) -> list[Group]:
    """Data and bits of the records, float first."""
    found = {(record.data, record.bits) for record in records}
    return sorted(found, key=lambda g: (g[0], g[1] != FLOAT, g[1]))


def values_by_seed(
    records: Iterable[Record], group: Group, arm: str
) -> dict[int, float]:
    """Seed -> mAP in per cent of an arm's finished runs."""
    return {
        record.seed: 100 * record.mAP
        for record in records
        if (record.data, record.bits, record.arm) == (*group, arm)
        and record.mAP is not None
    }


def group_table(
    done: list[Record], group: Group, reference: str | None
) -> str:
    """One row an arm, the highest mAP first."""
    header = ['arm', 'epochs', 'mAP', 'AP50', 'n']
    if reference is not None:
        header += ['difference', '95 % interval', 'pairs']
    header += ['w task', 'w KD']
    mine = [record for record in done if (record.data, record.bits) == group]
    rows = []
    for arm in {record.arm for record in mine}:
        runs = [record for record in mine if record.arm == arm]
        values = values_by_seed(mine, group, arm)
        row = [
            arm,
            '/'.join(str(e) for e in sorted({r.epochs for r in runs})),
            spread(list(values.values())),
            spread([100 * r.AP50 for r in runs if r.AP50 is not None]),
            str(len(values)),
        ]
        if reference is not None:
            others = _reference_values(done, group, reference)
            row += _difference(values, {} if arm == reference else others)
        for name in ('gor_w_task', 'gor_w_kd'):
            row.append(_weight([getattr(record, name) for record in runs]))
        rows.append((-mean(values.values()), row))
    return markdown_table(header, [row for _, row in sorted(rows)])


def _reference_values(
    done: list[Record], group: Group, reference: str
) -> dict[int, float]:
    """The reference arm at the same bits, or else in float."""
    data, _ = group
    same = values_by_seed(done, group, reference)
    return same or values_by_seed(done, (data, FLOAT), reference)


def _difference(
    values: dict[int, float], others: dict[int, float]
) -> list[str]:
    found = paired_difference(values, others)
    if found is None:
        return ['-', '-', '-']
    interval = '-'
    if found.half_width is not None:
        low = found.mean - found.half_width
        interval = f'{low:+.1f} to {found.mean + found.half_width:+.1f}'
    return [f'{found.mean:+.1f}', interval, str(found.pairs)]


def spread(values: list[float], digits: int = 1) -> str:
    """'39.1' for one value, '39.1 +- 0.4' (sample deviation) for several."""
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
    parts = [f'{len(records)} runs: {text}.']
    for name, plural in (('commit', 'Commits'), ('device', 'Devices')):
        found = sorted({getattr(record, name) for record in trained})
        label = name.capitalize() if len(found) == 1 else plural
        parts.append(f'{label}: {", ".join(found)}.')
    return ' '.join(parts)


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
