"""The HTML page of the cost report is complete, escaped and loads nothing."""

import pytest

from mmgor.deploy.cost.figures import (
    COLUMNS,
    TOP_LAYERS,
    Bar,
    bitops_by_part,
    bytes_by_bits,
    longest_layers,
    summary,
)
from mmgor.deploy.cost.html import report_html
from mmgor.deploy.cost.rows import EVERYTHING_ELSE, LayerCost, total_costs
from tests.support.pages import Page


def cost(name, w_bits=4, a_bits=4, **values):
    default = dict(
        type='QuantConv2d',
        shape=(2, 3, 1, 1),
        params=6,
        input='signed',
        bytes=11,
        float_bytes=24,
        calls=1,
        output=(2, 8, 8),
        macs=1000,
        seconds=0.01,
    )
    return LayerCost(
        name=name, w_bits=w_bits, a_bits=a_bits, **(default | values)
    )


ROWS = [
    cost('backbone.a', 8, 8, bytes=30, seconds=0.03),
    cost('backbone.b', bytes=20),
    cost('neck.c', bytes=10, seconds=0.04),
    cost('bbox_head.d', 32, 32, bytes=25),
    cost('bbox_head.unused', calls=0, output=(), macs=0, seconds=0.0),
    cost(
        EVERYTHING_ELSE,
        32,
        32,
        type='',
        shape=(),
        bytes=4,
        calls=0,
        output=(),
        macs=0,
        seconds=0.01,
    ),
]
HOSTILE = '<script>alert("x")</script> & \'y\''


def page(rows=ROWS, title='Cost of x', facts=None, notes=('One.', 'Two.')):
    return report_html(rows, title, facts or {'Config': 'x.py'}, list(notes))


def test_it_has_every_layer_and_column():
    texts = Page(page()).texts
    assert texts['th'] == [column.title for column in COLUMNS]
    cells = texts['td']
    assert len(cells) == len(ROWS) * len(COLUMNS)
    assert cells[:: len(COLUMNS)] == [row.name for row in ROWS]
    assert texts['li'] == ['One.', 'Two.']
    assert (texts['h1'], texts['title']) == (['Cost of x'], ['Cost of x'])
    assert (texts['dt'], texts['dd']) == (['Config'], ['x.py'])


def test_cells():
    row = dict(zip((c.title for c in COLUMNS), Page(page()).texts['td']))
    assert row == {
        'layer': 'backbone.a',
        'type': 'QuantConv2d',
        'weight': '2x3x1x1',
        'output': '2x8x8',
        'calls': '1',
        'W/A': '8/8',
        'input': 'signed',
        'params': '6',
        'kB': '0.0',
        'MMACs': '0.00',
        'GBitOPs': '0.000',
        # 64 of 64 + 16 + 16 + 1024
        'BitOPs %': '5.7%',
        'ms': '30.00',
        # 30 of 100
        'time %': '30.0%',
    }


def test_summary():
    shown = {label: (value, why) for label, value, why in summary(TOTAL)}
    # 100 bytes stand for 144
    assert shown['Packed size'] == (
        '0.00 MB',
        '1.4x smaller than 0.00 MB in float32',
    )
    # 1120 for 4 x 1024
    assert shown['BitOPs'][1].startswith('3.7x fewer')
    # 8, 4, 4, 32 and 4 bits on as many weights
    assert shown['Weight bits'][0] == '10.40'
    assert shown['Float pass'][0] == '100.0 ms'
    slow = total_costs([cost('neck', seconds=12.345)])
    assert summary(slow)[-1][1] == '12.35 s'


TOTAL = total_costs(ROWS)


def test_bytes_by_bits():
    assert [(b.label, b.value) for b in bytes_by_bits(ROWS)] == [
        ('4 bits', 20 + 10 + 11),
        ('8 bits', 30),
        ('float layers', 25),
        ('norms and the rest', 4),
    ]


def test_bitops_by_part():
    assert bitops_by_part(ROWS) == [
        Bar('backbone', 80_000, '0.00 G, 7.1%'),
        Bar('neck', 16_000, '0.00 G, 1.4%'),
        Bar('bbox_head', 1_024_000, '0.00 G, 91.4%'),
    ]


def test_longest_layers():
    bars, remark = longest_layers(ROWS)
    assert [bar.label for bar in bars] == [
        'neck.c',
        'backbone.a',
        'backbone.b',
        'bbox_head.d',
    ]
    assert bars[0].text == '40.00 ms, 40.0%'
    assert '4 of 5 layers take 90.0% of a float32 pass' in remark
    assert 'the other layers 0.0%' in remark
    assert '(norms, activations, resizing) 10.0%.' in remark
    many = [cost(f'neck.{i}', seconds=1.0) for i in range(TOP_LAYERS * 2)]
    bars, remark = longest_layers(many)
    assert len(bars) == TOP_LAYERS
    assert 'the other layers 50.0%' in remark


def test_bars_are_as_wide_as_their_values():
    widths = [
        float(value.removeprefix('width:').removesuffix('%'))
        for tag, name, value in Page(page()).attributes
        if (tag, name) == ('i', 'style')
    ]
    assert widths[:4] == [100, 73.17, 60.98, 9.76]  # 41, 30, 25 and 4
    assert widths[-4:] == [100, 75, 25, 25]  # 40, 30, 10 and 10 ms


@pytest.mark.parametrize('where', ['name', 'title', 'fact', 'note'])
def test_everything_is_escaped(where):
    text = page(
        rows=[cost(HOSTILE if where == 'name' else 'neck')],
        title=HOSTILE if where == 'title' else 't',
        facts={'a': HOSTILE} if where == 'fact' else {HOSTILE: 'b'},
        notes=[HOSTILE] if where == 'note' else [],
    )
    parsed = Page(text)
    assert 'script' not in parsed.texts
    element = dict(name='td', title='h1', fact='dd', note='li')[where]
    assert HOSTILE in parsed.texts[element]


def test_it_loads_nothing():
    text = page()
    for reference in ('http:', 'https:', '//', 'url(', '@import', '<link'):
        assert reference not in text
    names = {name for _, name, _ in Page(text).attributes}
    assert not names & {'src', 'href', 'srcset', 'data', 'onclick', 'onload'}
    assert 'prefers-color-scheme:dark' in text


def test_a_model_that_never_ran_has_no_shares():
    rows = [cost('neck', calls=0, output=(), macs=0, seconds=0.0)]
    cells = dict(zip((c.title for c in COLUMNS), Page(page(rows)).texts['td']))
    assert (cells['BitOPs %'], cells['time %']) == ('-', '-')
