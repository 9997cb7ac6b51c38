"""What was measured of the two losses' gradients, as Markdown."""

from math import exp, inf, isfinite, log
from statistics import mean

from .pairs import groups
from .plots import Curves
from .tables import markdown_table, spread

NOTE = (
    'Gradients of the weighted task and distillation loss at the shared '
    "features: cosine and norm ratio (geometric mean) over a run's "
    'measurements, cosine over their second half, and the share of them with '
    'a cosine below 0, where the losses pull against each other. Measurements '
    'of losses that were not finite do not count, nor does a ratio where one '
    'weight is 0. Mean +- sample standard deviation over n seeds.'
)

_HEADER = ('arm', 'cosine', 'second half', 'below 0', 'KD / task', 'n')


def gradient_text(curves: Curves) -> str:
    """A table for each data and bits, the largest cosine first; nothing
    where nothing was measured.

    Args:
        curves (Curves): From :func:`read_curves`.
    """
    found = [(record, gradient_values(logged)) for record, logged in curves]
    measured = [(record, values) for record, values in found if values]
    if not measured:
        return ''
    parts = [f'{NOTE} {len(measured)} runs with a log here measured them.']
    for group in groups(record for record, _ in measured):
        runs = [
            (record.arm, values)
            for record, values in measured
            if (record.data, record.bits) == group
        ]
        rows = []
        for arm in {name for name, _ in runs}:
            columns = list(zip(*(v for name, v in runs if name == arm)))
            cells = [
                spread([v for v in column if v is not None], digits=2)
                for column in columns
            ]
            row = [arm, *cells, str(len(columns[0]))]
            rows.append((-mean(columns[0]), row))
        parts += [
            f'### Gradients: {", ".join(group)}',
            markdown_table(_HEADER, [row for _, row in sorted(rows)]),
        ]
    return '\n\n'.join(parts) + '\n'


def gradient_values(
    logged: list[dict],
) -> tuple[float, float, float, float | None] | None:
    """Of one run.

    Args:
        logged (list[dict]): Training records; some have ``gor_grad_cosine``
            and ``gor_grad_ratio`` (KD over task).

    Returns:
        tuple | None: Mean cosine, mean cosine of the second half, share
        below 0, geometric mean of the ratio over the finite ones above 0
        (None if there are none); None if never measured.
    """
    measured = [
        record
        for record in logged
        if isfinite(record.get('gor_grad_cosine', inf))
    ]
    if not measured:
        return None
    cosines = [record['gor_grad_cosine'] for record in measured]
    ratios = [record['gor_grad_ratio'] for record in measured]
    logs = [log(ratio) for ratio in ratios if 0 < ratio < inf]
    return (
        mean(cosines),
        mean(cosines[len(cosines) // 2 :]),
        mean(cosine < 0 for cosine in cosines),
        exp(mean(logs)) if logs else None,
    )
