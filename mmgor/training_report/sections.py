"""The parts of the page that come from the log."""

import math
from collections.abc import Iterable
from typing import Any

from mmgor.io.training_log import (
    GOR_PANELS,
    TrainingLog,
    main_metric,
    teacher_keys,
)
from mmgor.pages import Series, bullets, line_chart, table
from mmgor.pages.lines import short

from .run_files import Taught

_KD = 'loss_kd_'
_NO_LOG = (
    'No training iteration is in the log (*/vis_data/scalars.json), so curves '
    'are left out. mmengine writes it with '
    "vis_backends=[dict(type='LocalVisBackend')]."
)

#: The parts of the page, in their order.
ACCURACY = 'mAP over time'
LOSSES = 'Losses'
WEIGHTS = 'Loss weights and teachers'
LAYERS = 'Layers'
SCALES = 'Step sizes that still move'
IMAGES = 'Best and worst images'


def links() -> str:
    """Links to the parts of the page."""
    titles = ACCURACY, LOSSES, WEIGHTS, LAYERS, SCALES, IMAGES
    items = (f'<a href="#{_key(title)}">{title}</a>' for title in titles)
    return f'<nav>{"".join(items)}</nav>\n'


def _key(title: str) -> str:
    return title.lower().replace(' ', '-')


def section(title: str, content: str, sentences: Iterable[str] = ()) -> str:
    """A part of the page: heading, sentences, content."""
    notes = [text for text in sentences if text]
    return (
        f'<section id="{_key(title)}"><h2>{title}</h2>'
        f'{bullets(notes) if notes else ""}{content}</section>\n'
    )


def charts(parts: Iterable[str]) -> str:
    """Charts beside each other."""
    return f'<div class="charts">{"".join(parts)}</div>'


def curve(
    records: list[dict[str, Any]], key: str, label: str, factor: float = 1.0
) -> Series:
    """The values of a key over the steps."""
    return Series(
        label,
        [(r['step'], factor * r[key]) for r in records if key in r],
    )


def accuracy_section(log: TrainingLog) -> str:
    """The metrics of the evaluations during training."""
    metric = main_metric(log.evaluations)
    if metric is None:
        why = (
            _NO_LOG
            if not log.records
            else 'No evaluation with an mAP was logged: the run did not '
            'reach one (train_cfg.val_interval), or no box was found.'
        )
        return section(ACCURACY, '', [why])
    names = dict.fromkeys(
        key
        for each in log.evaluations
        for key in each
        if key.startswith(metric)
    )
    known = [
        (name, [r for r in log.evaluations if r.get(name, -1) >= 0])
        for name in names
    ]
    sizes = [curve(rs, n, n, 100) for n, rs in known if _of_a_size(n)]
    others = [curve(rs, n, n, 100) for n, rs in known if not _of_a_size(n)]
    parts = [
        line_chart('mAP in per cent', others, log.unit),
        line_chart('mAP by the size of objects, in per cent', sizes, log.unit),
    ]
    return section(
        ACCURACY,
        charts(parts),
        [
            'Measured on the evaluation images during training. _50 and _75 '
            'count a box as right from that IoU on (in per cent); the metric '
            'without a number is the mean over IoU 50 to 95.',
            '_s, _m and _l are objects below 32 x 32 pixels, up to 96 x 96, '
            'and larger.'
            if any(s.points for s in sizes)
            else '',
        ],
    )


def _of_a_size(name: str) -> bool:
    return name.endswith(('_s', '_m', '_l'))


def loss_section(log: TrainingLog) -> str:
    """Losses, learning rate and gradients."""
    if not log.records:
        return section(LOSSES, '', [_NO_LOG])
    keys = list(dict.fromkeys(key for record in log.records for key in record))
    losses = [k for k in keys if 'loss' in k and k != 'loss']
    kd = [k for k in losses if k.startswith(_KD)]
    task = [k for k in losses if k not in kd and not k.startswith('loss_gor')]

    def draw(title: str, names: list[str], log_axis: bool = False) -> str:
        curves = [curve(log.records, name, name) for name in names]
        return line_chart(title, curves, 'iteration', log=log_axis)

    parts = [
        draw('Sum of all losses', ['loss']),
        draw('Losses of the task, weighted', task, log_axis=True),
        draw('Losses of the distillation, weighted', kd, log_axis=True),
        draw('Norm of the gradient', ['grad_norm'], log_axis=True),
        draw('Learning rate', [k for k in keys if k == 'lr']),
    ]
    last = log.records[-1]
    share = sum(last.get(k, 0) for k in kd) / (last['loss'] or 1)
    return section(
        LOSSES,
        charts(parts),
        [
            'As logged: means over the last iterations '
            '(log_processor.window_size), after weighting.',
            f'In the last record, the distillation is {100 * share:.0f} % of '
            'the sum.'
            if kd and math.isfinite(share)
            else '',
        ],
    )


def weight_section(log: TrainingLog, taught: Taught) -> str:
    """Loss weights, and what each teacher gave.

    Args:
        log (TrainingLog): The log.
        taught (Taught): The teachers.
    """
    records = [r for r in log.records if 'gor_w_kd' in r]
    if not records:
        why = 'No loss weights were logged'
        why += '.' if taught.teachers else ': this training had no teacher.'
        return section(WEIGHTS, '', [why])
    parts = []
    for name, _, log_axis, keys in GOR_PANELS:
        shown = keys | teacher_keys(records, keys)
        curves = [curve(records, key, label) for key, label in shown.items()]
        parts.append(line_chart(name, curves, 'iteration', log=log_axis))
    first_last = [
        (f'{what} {when}', 'number')
        for what in ('weight', 'loss')
        for when in ('first', 'last')
    ]
    rows = teacher_rows(records, taught)
    tables = table(
        [
            ('what the student learns from', 'text'),
            *first_last[2:],
            ('share of the sum %', 'share'),
        ],
        source_rows(records, taught),
    ) + table([('teacher', 'text'), *first_last, ('checkpoint', 'text')], rows)
    return section(
        WEIGHTS,
        tables + charts(parts),
        [
            'First and last are means over the first and last tenth of the '
            'records, the share is a mean over all. The first table has '
            'weighted losses, as they are added up; the second has the '
            'weight and the unweighted loss of each teacher.',
            'A loss that falls means that the student comes closer to this '
            'teacher. A share near 0 or 100 % means that one side alone '
            'trains the student.',
            'A dash: the detections of several teachers are fused before '
            'they are compared, so there is no loss of one alone.'
            if any('-' in row for row in rows)
            else '',
        ],
    )


def source_rows(
    records: list[dict[str, Any]], taught: Taught
) -> list[list[str]]:
    """A row for the labels and one for each KD head: its weighted loss, and
    its share of the sum of all losses.

    Args:
        records (list[dict]): Those with ``gor_*`` values.
        taught (Taught): The teachers.
    """
    keys = {key for record in records for key in record}
    kd = sorted(key for key in keys if key.startswith(_KD))
    rows = []
    for key in [None, *kd]:
        name = 'the labels (task losses)'
        if key is not None:
            head = key.removeprefix(_KD)
            who = ', '.join(taught.heads.get(head, []))
            name = f'KD head {head}' + (f', from {who}' if who else '')
        shares, values = [], []
        for record in records:
            parts = {k: record.get(k, math.nan) for k in kd}
            task = record['gor_w_task'] * record['gor_raw_task']
            value = task if key is None else parts[key]
            share = value / (task + sum(parts.values()) or math.nan)
            if math.isfinite(share):
                values.append(value)
                shares.append(share)
        mean = sum(shares) / len(shares) if shares else 0.0
        rows.append([name, *_ends(values), f'{100 * mean:.1f}%'])
    return rows


def teacher_rows(
    records: list[dict[str, Any]], taught: Taught
) -> list[list[str]]:
    """A row for each teacher: its weight, its unweighted loss and what it is.

    Args:
        records (list[dict]): Those with ``gor_*`` values.
        taught (Taught): The teachers.
    """
    names = list(teacher_keys(records, {'gor_w_kd': ''}).values())
    suffixes = {name: f'_{name}' for name in names}
    if not names:  # of a single teacher
        suffixes = dict.fromkeys(taught.teachers, '')
    rows = []
    for name, suffix in suffixes.items():
        ends = [
            end
            for key in ('gor_w_kd', 'gor_raw_kd')
            for end in _ends([r.get(f'{key}{suffix}') for r in records])
        ]
        rows.append([name, *ends, taught.teachers.get(name, '')])
    return rows


def _ends(values: Iterable[float | None]) -> tuple[str, str]:
    """Means of the first and of the last tenth of what is finite."""
    good = [v for v in values if v is not None and math.isfinite(v)]
    if not good:
        return '-', '-'
    count = -(-len(good) // 10)
    first, last = good[:count], good[-count:]
    return short(sum(first) / count), short(sum(last) / count)
