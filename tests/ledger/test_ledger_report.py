"""Statistics, tables and plots of a ledger."""

import json
import sys
from pathlib import Path

import ledger_report
import pytest
from test_records import record

from mmgor.ledger.estimates import Estimates, duration
from mmgor.ledger.gradient_table import gradient_text
from mmgor.ledger.plots import plot_all, read_curves
from mmgor.ledger.stats import Difference, paired_difference, t_quantile
from mmgor.ledger.tables import markdown_table, report_text


@pytest.mark.parametrize(
    'probability, freedom, quantile',
    [  # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 4, 2.776),
        (0.975, 9, 2.262),
        (0.95, 30, 1.697),
        (0.99, 100, 2.364),
    ],
)
def test_published_quantiles(probability, freedom, quantile):
    assert t_quantile(probability, freedom) == pytest.approx(
        quantile, abs=5.1e-4
    )


def test_quantiles_in_closed_form():
    """One degree of freedom: tan(pi (p - 1/2)); two: algebraic."""
    assert t_quantile(0.75, 1) == pytest.approx(1, abs=1e-9)
    p = 0.975
    two = (2 * p - 1) * (2 / (4 * p * (1 - p))) ** 0.5
    assert t_quantile(p, 2) == pytest.approx(two, abs=1e-9)


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1, standard error 1/sqrt(3)."""
    values = {0: 11.0, 1: 22.0, 2: 33.0, 7: 50.0}
    reference = {2: 30.0, 1: 20.0, 0: 10.0, 5: 1.0}
    found = paired_difference(values, reference)
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / 3**0.5, abs=1e-6)
    wider = paired_difference(values, reference, level=0.99)
    assert wider.half_width == pytest.approx(9.924843 / 3**0.5, abs=1e-6)


def test_too_few_pairs_for_an_interval():
    assert paired_difference({0: 3.0}, {0: 2.0}) == Difference(1.0, None, 1)
    assert paired_difference({0: 3.0}, {1: 2.0}) is None


def results():
    """Two seeds of qat and gor at W4A4, one float run, one that failed."""
    gor = dict(arm='gor', gor_w_task=0.5, gor_w_kd=2.0)
    return [
        record(arm='float', bits='float', mAP=0.42, AP50=0.7, epochs=6),
        record(mAP=0.40, AP50=0.60),
        record(mAP=0.44, AP50=0.60, seed=1),
        record(mAP=0.43, AP50=0.61, **gor),
        record(mAP=0.45, AP50=0.63, seed=1, **gor),
        record(
            arm='gor',
            seed=2,
            mAP=None,
            AP50=None,
            status='failed',
            reason='exit status 1:\na|b',
            commit='abd-dirty',
        ),
    ]


def test_the_report_word_by_word():
    """mAP: (43 - 40, 45 - 44), mean 2, deviation sqrt(2), so that the
    interval is 2 +- 12.7062 * sqrt(2) / sqrt(2)."""
    expected = Path(__file__).with_name('expected_report.md').read_text()
    assert report_text('screen', results(), 'qat') == expected


def test_tables_are_aligned():
    assert markdown_table(('a', 'long'), [('bcd', 'e')]) == (
        '| a   | long |\n|-----|------|\n| bcd | e    |'
    )


def test_without_a_reference():
    text = report_text('screen', results())
    assert 'difference' not in text.lower()
    gor = next(line for line in text.splitlines() if '| gor' in line)
    assert [cell.strip() for cell in gor.strip('|').split('|')] == [
        *('gor', '12', '44.0 +- 1.4', '62.0 +- 1.4', '0 1, failed 2'),
        *('0.5', '2'),
    ]


def test_a_float_reference_serves_all_bits():
    text = report_text('screen', results(), 'float')
    gor = next(line for line in text.splitlines() if '| gor' in line)
    # Seed 0 only: 43 - 42.
    assert [cell.strip() for cell in gor.split('|')][6:9] == ['+1.0', '-', '1']


def first_cells(text, heading):
    """First cells of the table below a heading."""
    table = text.partition(heading)[2].split('\n\n')[1].splitlines()[2:]
    return [row.split('|')[1].strip() for row in table]


def test_pairs_decide_the_order():
    """Seed 1 is the easy one: a mean over it alone says nothing."""
    records = [
        record(mAP=0.40),
        record(mAP=0.50, seed=1),
        record(arm='worse', mAP=0.49, seed=1),
        record(arm='better', mAP=0.41),
        record(arm='other seed', mAP=0.9, seed=7),
        record(arm='no end', mAP=None, AP50=None, status='failed'),
        record(arm='wide', bits='W16A16'),
        record(arm='narrow', bits='W2A2'),
    ]
    text = report_text('screen', records, 'qat')
    assert first_cells(text, 'W4A4') == [
        *('better', 'qat', 'worse', 'other seed', 'no end')
    ]
    assert first_cells(report_text('screen', records), 'W4A4') == [
        *('other seed', 'worse', 'qat', 'better', 'no end')
    ]
    # A failure without a reason is told, too; bits are in order.
    assert '| cells/no end/W4A4/seed0 | failed |        |' in text
    assert text.index('W2A2') < text.index('W4A4') < text.index('W16A16')


def test_pairs_that_differ_in_more_than_the_arm():
    records = [
        record(),
        record(seed=1),
        record(arm='gor', device='another', commit='abd'),
        record(
            arm='gor',
            seed=1,
            commit='abd',
            parents={'cells/float/float/seed0': 'new', 'cells/big': 'x'},
        ),
        record(arm='fine'),
    ]
    warnings = [
        part.strip()
        for part in report_text('screen', records, 'qat').split('\n\n')
        if 'not alike' in part
    ]
    assert warnings == [
        '`gor` and `qat` are not alike: device (seeds 0); commit (seeds 0, '
        '1); weights of cells/float/float/seed0 (seeds 1).'
    ]
    assert 'not alike' not in report_text('screen', records)


def test_an_unknown_reference():
    with pytest.raises(ValueError, match=r"no arm 'qad' in the results; got"):
        report_text('screen', results(), 'qad')
    with pytest.raises(ValueError, match='no results in screen'):
        report_text('screen', [])


def test_tool_with_curves(tmp_path, monkeypatch, capsys):
    """All four pictures: two bits, weights and gradients in one run."""
    records = [*results(), record(bits='W2A2', mAP=0.3)]
    file = tmp_path / 'screen.jsonl'
    lines = [json.dumps(vars(r)) + '\n' for r in records]
    file.write_text(''.join(lines))
    vis_data = tmp_path / 'screen/cells/gor/W4A4/seed0/now/vis_data'
    vis_data.mkdir(parents=True)
    entry = dict(gor_w_task=1.0, gor_w_kd=0.5, loss=1.0)
    gradients = dict(gor_grad_ratio=0.5, gor_grad_cosine=0.1)
    (vis_data / 'scalars.json').write_text(
        json.dumps(dict(entry, step=10))
        + '\n'
        + json.dumps(dict(entry, **gradients, step=20))
        + '\n'
        + json.dumps({'coco/bbox_mAP': 0.43, 'step': 12})
    )
    out = tmp_path / 'report' / 'screen.md'
    argv = ['x', str(file), '--reference', 'qat', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', argv)
    ledger_report.main()
    names = ['map', 'bits', 'weights', 'gradients']
    pictures = [out.with_name(f'screen_{name}.png') for name in names]
    assert capsys.readouterr().out.splitlines() == [
        str(path) for path in (out, *pictures)
    ]
    text = out.read_text()
    report = report_text('screen', records, 'qat')
    (curve,) = read_curves(records, tmp_path / 'screen')
    assert text.startswith(report + '\n' + gradient_text([curve]))
    for picture in pictures:
        assert picture.read_bytes().startswith(b'\x89PNG')
        assert f'\n![{picture.stem}]({picture.name})\n' in text


def test_what_the_tool_does_not_take(tmp_path, monkeypatch, capsys):
    (tmp_path / 'plan.yaml').touch()
    (tmp_path / 'a.jsonl').write_text(json.dumps(vars(record())))
    for name, out, message in (
        ('plan.yaml', 'b.md', 'expected the .jsonl file of tools/ledger.py'),
        ('b.jsonl', 'b.md', 'expected the .jsonl file of tools/ledger.py'),
        ('a.jsonl', '.', '--out expected a .md file to write'),
        ('a.jsonl', 'a.jsonl', '--out expected a .md file to write'),
    ):
        argv = ['x', str(tmp_path / name), '--out', str(tmp_path / out)]
        monkeypatch.setattr(sys, 'argv', argv)
        with pytest.raises(SystemExit):
            ledger_report.main()
        assert message in capsys.readouterr().err


def test_bits_are_drawn_for_each_data_set_that_has_several(tmp_path):
    several = [record(data='a'), record(data='a', bits='W2A2', mAP=0.3)]
    others = [record(data='b'), record(data='b', arm='gor', bits='W2A2')]
    for records, count in ((several + others, 2), (others, 1)):
        assert len(plot_all(records, [], tmp_path / 'a.md')) == count


def test_only_plots_that_show_something(tmp_path):
    plain = [record()]
    assert read_curves(plain, tmp_path) == []
    assert plot_all(plain, [], tmp_path / 'a.md') == [tmp_path / 'a_map.png']
    assert plot_all([record(status='failed')], [], tmp_path / 'a.md') == []


class FakeRun:
    def __init__(self, arm, bits, data='cells', epochs=12):
        self.key = data, arm, bits, 9
        self.epochs = epochs


def test_estimates_follow_the_most_alike_runs():
    estimates = Estimates(
        [
            record(wall_s=120.0),
            record(wall_s=240.0, seed=1),
            record(wall_s=1200.0, arm='gor'),
            record(wall_s=30.0, arm='ptq', epochs=0),
            record(wall_s=9e9, device='another', seed=2),
            record(wall_s=9e9, status='failed', seed=3),
        ],
        'a processor',
    )
    assert estimates.seconds(FakeRun('qat', 'W4A4')) == 180
    assert estimates.seconds(FakeRun('qat', 'W2A2', epochs=24)) == 360
    # Seconds an epoch: 10, 20 and 100; a calibration is none.
    assert estimates.seconds(FakeRun('new', 'W4A4', epochs=3)) == 130
    assert estimates.seconds(FakeRun('new', 'W4A4', epochs=0)) == 30
    assert estimates.seconds(FakeRun('qat', 'W4A4', data='others')) is None


def test_time_left_in_words():
    estimates = Estimates([record(wall_s=600.0)], 'a processor')
    known, unknown = FakeRun('qat', 'W4A4'), FakeRun('qat', 'W4A4', 'others')
    assert estimates.left([known] * 2, {}, 2) == '10 min left'
    running = {known: 480.0, FakeRun('qat', 'W4A4'): 700.0}
    assert estimates.left([], running, 1) == '2 min left'
    assert estimates.left([unknown], {}, 1) == '1 left, time not known yet'
    assert estimates.left([unknown, known], {}, 1) == (
        'more than 10 min left, 1 not known yet'
    )


def test_durations():
    assert duration(89.4) == '89 s'
    assert duration(90) == '2 min'
    assert duration(3.5 * 3600 + 65) == '3 h 31 min'
