"""What was measured of the two losses' gradients, as Markdown."""

from math import exp, log
from statistics import mean

from .pairs import groups
from .plots import Curves
from .tables import markdown_table, spread

NOTE = (
    'Gradients of the weighted task and distillation loss at the shared '
    "features: cosine and norm ratio (geometric mean) over a run's "
    'measurements, cosine over their second half, and the share of them with '
    'a cosine below 0, where the losses pull against each other. Mean +- '
    'sample standard deviation over n seeds.'
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
            cells = [spread(list(c), digits=2) for c in columns]
            row = [arm, *cells, str(len(columns[0]))]
            rows.append((-mean(columns[0]), row))
        parts += [
            f'### Gradients: {", ".join(group)}',
            markdown_table(_HEADER, [row for _, row in sorted(rows)]),
        ]
    return '\n\n'.join(parts) + '\n'


def gradient_values(logged: list[dict]) -> tuple[float, ...]:
    """Of one run.

    Args:
        logged (list[dict]): Training records; some have ``gor_grad_cosine``
            and ``gor_grad_ratio`` (KD over task).

    Returns:
        tuple[float, ...]: Mean cosine, mean cosine of the second half, share
        below 0, geometric mean of the ratio; empty if never measured.
    """
    pairs = [
        (record['gor_grad_cosine'], record['gor_grad_ratio'])
        for record in logged
        if 'gor_grad_cosine' in record
    ]
    if not pairs:
        return ()
    cosines = [cosine for cosine, _ in pairs]
    return (
        mean(cosines),
        mean(cosines[len(cosines) // 2 :]),
        mean(cosine < 0 for cosine in cosines),
        exp(mean(log(max(ratio, 1e-30)) for _, ratio in pairs)),
    )
