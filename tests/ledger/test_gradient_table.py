"""What the report says of the gradients."""

import pytest
from test_records import record

from mmgor.ledger.gradient_table import gradient_text, gradient_values


def measured(*pairs):
    """A log of cosines and ratios, and of steps without any."""
    return [
        dict(gor_w_kd=1.0),
        *[dict(gor_grad_cosine=c, gor_grad_ratio=r) for c, r in pairs],
    ]


def test_gradient_values_by_hand():
    logged = measured((0.5, 2.0), (0.3, 8.0), (-0.1, 1.0), (0.2, 0.25))
    # log2 of the ratios: 1, 3, 0, -2; mean 0.5.
    expected = (0.225, 0.05, 0.25, 2**0.5)
    assert gradient_values(logged) == pytest.approx(expected)
    assert gradient_values(measured()) is None


def test_measurements_without_a_number():
    """A dropped step has no cosine, a weight of 0 no ratio (MGDA, SQAKD)."""
    nan, inf = float('nan'), float('inf')
    logged = measured((nan, nan), (0.5, inf), (0.3, 4.0), (0.1, 0.0))
    expected = (0.3, 0.2, 0.0, 4.0)
    assert gradient_values(logged) == pytest.approx(expected)
    assert gradient_values(measured((nan, nan))) is None
    assert gradient_values(measured((0.5, inf)))[3] is None
    curves = [
        (record(), measured((0.5, inf))),
        (record(seed=1), measured((0.5, inf))),
        (record(seed=2), measured((0.5, 3.0), (nan, nan))),
    ]
    cells = gradient_text(curves).splitlines()[-1].strip('|').split('|')
    assert [cell.strip() for cell in cells] == [
        *('qat', '0.50 +- 0.00', '0.50 +- 0.00', '0.00 +- 0.00', '3.00', '3')
    ]


def test_gradient_table_by_hand():
    curves = [
        (record(arm='gor'), measured((0.2, 1.0))),
        (record(arm='gor', seed=1), measured((0.4, 4.0))),
        (record(arm='fixed'), measured((0.5, 9.0))),
        (record(arm='qat'), measured()),
        (record(arm='fixed', bits='W2A2'), measured((-0.5, 9.0))),
    ]
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in gradient_text(curves).splitlines()
        if line.startswith('|')
    ]
    header = ['arm', 'cosine', 'second half', 'below 0', 'KD / task', 'n']
    assert [row for row in rows if '--' not in row[0]] == [
        header,
        ['fixed', '-0.50', '-0.50', '1.00', '9.00', '1'],
        header,
        ['fixed', '0.50', '0.50', '0.00', '9.00', '1'],
        [
            *('gor', '0.30 +- 0.14', '0.30 +- 0.14', '0.00 +- 0.00'),
            *('2.50 +- 2.12', '2'),
        ],
    ]
    assert gradient_text([(record(), measured())]) == ''
