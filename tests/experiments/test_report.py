"""Tables and plots, against numbers by hand and the shipped results."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments import REPOSITORY, __main__
from experiments.report import (
    gradient_text,
    markdown,
    paired_difference,
    read_frame,
    report_text,
)
from tests.support.experiments import record


def frame(tmp_path, *records):
    file = tmp_path / 'screen.jsonl'
    lines = [json.dumps(vars(line)) + '\n' for line in records]
    file.write_text(''.join(lines))
    return read_frame(file)


def rows(text, heading=''):
    """Cells of the first table below a heading."""
    parts = text[text.index(heading) :].split('\n\n')
    table = next(part for part in parts if part.startswith('| '))
    lines = [line for line in table.splitlines() if not line.startswith('|-')]
    return [[c.strip() for c in line[1:-1].split(' | ')] for line in lines]


def seeds(**values):
    return pd.DataFrame(
        dict(seed=[int(s[1:]) for s in values], mAP=list(values.values()))
    )


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); the quantile
    of Student's t is that of published tables."""
    values = seeds(s0=11.0, s1=22.0, s2=33.0, s3=np.nan, s7=50.0)
    reference = seeds(s2=30.0, s1=20.0, s0=10.0, s3=1.0, s5=1.0)
    half = 4.302653 / 3**0.5
    assert paired_difference(values, reference) == pytest.approx(
        (2.0, 2 - half, 2 + half, 3), abs=1e-6
    )
    one = paired_difference(values, seeds(s1=21.0))
    assert one == pytest.approx((1.0, np.nan, np.nan, 1), nan_ok=True)
    assert paired_difference(values, seeds(s5=21.0))[3] == 0


def test_a_table_by_hand(tmp_path):
    """mAP: 43 - 40 and 45 - 44, so 2 +- 12.7062 * sqrt(2) / sqrt(2)."""
    gor = dict(arm='gor', gor_w_task=0.5, gor_w_kd=2.0)
    failed = dict(mAP=None, AP50=None, status='failed')
    runs = frame(
        tmp_path,
        record(arm='float', bits='float', mAP=0.42, AP50=0.7, epochs=6),
        record(mAP=0.40, AP50=0.60),
        record(mAP=0.44, AP50=0.60, seed=1),
        record(mAP=0.43, AP50=0.61, **gor),
        record(mAP=0.45, AP50=0.63, seed=1, **gor),
        record(arm='gor', seed=2, **failed, reason='exit status 1:\na|b'),
        record(arm='gor', seed=3, mAP=None, AP50=None, reason='no metric'),
        record(arm='lost', mAP=None, AP50=None, epochs=None),
    )
    text = report_text('screen', runs, 'qat')
    header = ['arm', 'epochs', 'mAP', 'AP50', 'seeds']
    compared = ['difference', '95 % interval', 'pairs']
    assert rows(text, '## cells, float\n') == [
        [*header, *compared, 'w task', 'w KD'],
        ['float', '6', '42.0', '70.0', '0', *'-----'],
    ]
    found = ['gor', '12', '44.0 +- 1.4', '62.0 +- 1.4']
    found.append('0 1, failed 2, no metric 3')
    assert rows(text, '## cells, W4A4\n')[1:] == [
        [*found, '+2.0', '-10.7 to +14.7', '2', '0.5', '2'],
        ['qat', '12', '42.0 +- 2.8', '60.0 +- 0.0', '0 1', *'-----'],
        ['lost', '-', '-', '-', 'no metric 0', *'-----'],
    ]
    assert rows(text, 'remarkable')[1:] == [
        ['cells/gor/W4A4/seed2', 'failed', 'exit status 1: / a\\|b'],
        ['cells/gor/W4A4/seed3', 'done', 'no metric'],
    ]
    plain = report_text('screen', runs)
    assert rows(plain, 'W4A4')[:2] == [
        [*header, 'w task', 'w KD'],
        [*found, '0.5', '2'],
    ]
    # A float reference serves all bits: seed 0 only, 43 - 42.
    text = report_text('screen', runs, 'float')
    assert rows(text, 'W4A4')[1][5:8] == ['+1.0', '-', '1']
    with pytest.raises(ValueError, match=r"no arm 'qad' in the results; got"):
        report_text('screen', runs, 'qad')


def test_pairs_decide_the_order(tmp_path):
    """Seed 1 is the easy one: a mean over it alone says nothing."""
    runs = frame(
        tmp_path,
        record(arm='wide', bits='W16A16'),
        record(mAP=0.40),
        record(mAP=0.50, seed=1),
        record(arm='worse', mAP=0.49, seed=1),
        record(arm='better', mAP=0.41),
        record(arm='other seed', mAP=0.9, seed=7),
    )
    text = report_text('screen', runs, 'qat')
    assert [row[0] for row in rows(text, 'W4A4')[1:]] == [
        *('better', 'qat', 'worse', 'other seed')
    ]
    assert text.index('W4A4') < text.index('W16A16')


def test_pairs_that_differ_in_more_than_the_arm(tmp_path):
    runs = frame(
        tmp_path,
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
    )
    parts = report_text('screen', runs, 'qat').split('\n\n')
    assert [part.strip() for part in parts if 'not alike' in part] == [
        '`gor` and `qat` are not alike: device (seeds 0); commit (seeds 0, '
        '1); weights of cells/float/float/seed0 (seeds 1).'
    ]


def logs(**pairs):
    """A log of cosines and ratios; the arm's name and seed are the key."""
    return pd.DataFrame(
        [
            dict(
                data='cells',
                bits='W4A4',
                arm=key[:-1],
                seed=int(key[-1]),
                step=step,
                gor_grad_cosine=cosine,
                gor_grad_ratio=ratio,
            )
            for key, values in pairs.items()
            for step, (cosine, ratio) in enumerate(values)
        ]
    )


def test_gradients_by_hand():
    """log2 of qat's ratios: 1, 3, 0, -2; mean 0.5. A dropped step has no
    cosine, a weight of 0 no ratio (MGDA, SQAKD)."""
    nan, inf = float('nan'), float('inf')
    text = gradient_text(
        logs(
            qat0=[
                (0.5, 2.0),
                (0.3, 8.0),
                (nan, nan),
                (-0.1, 1.0),
                (0.2, 0.25),
            ],
            gor0=[(0.2, 1.0), (0.2, inf)],
            gor1=[(0.4, 4.0), (0.4, 0.0)],
            none0=[(nan, nan)],
            zero0=[(0.1, 0.0)],
        )
    )
    assert rows(text) == [
        ['arm', 'cosine', 'second half', 'below 0', 'KD / task', 'n'],
        [
            *('gor', '0.30 +- 0.14', '0.30 +- 0.14', '0.00 +- 0.00'),
            *('2.50 +- 2.12', '2'),
        ],
        ['qat', '0.23', '0.05', '0.25', '1.41', '1'],
        ['zero', '0.10', '0.10', '0.00', '-', '1'],
    ]
    assert gradient_text(pd.DataFrame()) == ''


def test_the_command_writes_tables_and_plots(tmp_path, capsys):
    gor = dict(arm='gor', mAP=0.43)
    frame(
        tmp_path, record(), record(**gor), record(**gor, seed=1),
        record(bits='W2A2', mAP=0.3),
    )  # fmt: skip
    vis_data = tmp_path / 'screen/cells/gor/W4A4/seed0/now/vis_data'
    vis_data.mkdir(parents=True)
    entry = dict(gor_w_task=1.0, gor_w_kd=0.5, loss=1.0)
    gradients = dict(gor_grad_ratio=0.5, gor_grad_cosine=0.1)
    lines = [
        dict(entry, step=10),
        dict(entry, **gradients, step=20),
        {'coco/bbox_mAP': 0.43, 'step': 12},
    ]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (vis_data / 'scalars.json').write_text(text)
    results, out = tmp_path / 'screen.jsonl', tmp_path / 'new' / 'a.md'
    argv = ['report', str(results), '--reference', 'qat', '--out', str(out)]
    assert __main__.main(argv) == 0
    names = ('map', 'bits', 'weights', 'gradients')
    images = [out.with_name(f'a_{name}.png') for name in names]
    shown = capsys.readouterr().out.splitlines()
    assert shown == [str(path) for path in (out, *images)]
    for image in images:
        assert image.read_bytes().startswith(b'\x89PNG')
        assert f'\n![{image.stem}]({image.name})\n' in out.read_text()
    assert '### Gradients: cells, W4A4' in out.read_text()
    with pytest.raises(ValueError, match=r'expected the \.jsonl of a run'):
        __main__.main(['report', str(out), '--out', str(out)])
    with pytest.raises(ValueError, match=r'expected an \.md file'):
        __main__.main(['report', str(results), '--out', str(results)])


def test_tables_are_aligned():
    assert markdown(('a', 'long'), [('bcd', 'e')]) == (
        '| a   | long |\n|-----|------|\n| bcd | e    |'
    )


@pytest.mark.parametrize(
    'name, reference, bits, row',
    [  # As docs/results/comparison.md has them.
        (
            'bccd_screen',
            'fixed_3',
            'W2A2',
            ['gor_barrier', '47.6 +- 1.7', '+1.1', '-1.0 to +3.1'],
        ),
        (
            'bccd_screen',
            'float2',
            'W2A2',
            ['gor_anchored_share_2', '46.7 +- 1.3', '+2.4', '-1.0 to +5.8'],
        ),
        (
            'coco_yolox',
            'fixed_10',
            'W4A4',
            ['gor_gradient', '7.0 +- 1.1', '-0.3', '-1.7 to +1.0'],
        ),
        (
            'person_retinanet',
            'fixed_1',
            'W4A4',
            ['gor_zero_sum', '8.9', '-0.5', '-'],
        ),
        (
            'power',
            'fixed_10',
            'W2A2',
            ['stake_1_to_8', '38.2 +- 0.4', '+0.6', '+0.3 to +1.0'],
        ),
        (
            'power',
            'qat',
            'W2A2',
            ['dlb_5', '31.8 +- 0.7', '-2.6', '-3.5 to -1.8'],
        ),
        (
            'power_yolox',
            'qat',
            'W3A3',
            ['gor', '19.1 +- 0.3', '-1.0', '-1.9 to -0.1'],
        ),
    ],
)
def test_shipped_results_give_their_numbers(name, reference, bits, row):
    file = REPOSITORY / 'docs' / 'results' / f'{name}.jsonl'
    text = report_text(name, read_frame(file), reference)
    scenes = dict.fromkeys(('power', 'power_yolox'), 'scenes')
    data = dict(scenes, bccd_screen='bccd').get(name, 'coco')
    found = rows(text, f'## {data}, {bits}\n')
    assert row in [[r[0], r[2], r[5], r[6]] for r in found]
