"""Columns, figures and bars of the cost report, as text.

The text report and the HTML page show the same ones.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from mmgor.pages import Bar
from mmgor.quantization.report import FLOAT_BITS

from .rows import EVERYTHING_ELSE, CostTotals, LayerCost

TOP_LAYERS = 12


@dataclass(frozen=True)
class Column:
    """A column of the table of layers.

    Attributes:
        title (str): Header of the column.
        show (Callable): Returns the text of a cell for a row and the totals.
        kind (str): 'text', 'number', or 'share' (a number in percent).
    """

    title: str
    show: Callable[[LayerCost, CostTotals], str]
    kind: str = 'number'


def _share(part: float, whole: float) -> str:
    return f'{100 * part / whole:.1f}%' if whole else '-'


def _shape(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape)) or '-'


#: The table of layers, from left to right.
COLUMNS = (
    Column('layer', lambda r, _: r.name, 'text'),
    Column('type', lambda r, _: r.type or '-', 'text'),
    Column('weight', lambda r, _: _shape(r.shape)),
    Column('output', lambda r, _: _shape(r.output)),
    Column('calls', lambda r, _: str(r.calls)),
    Column('W/A', lambda r, _: f'{r.w_bits}/{r.a_bits}'),
    Column('input', lambda r, _: r.input, 'text'),
    Column('params', lambda r, _: f'{r.params:,}'),
    Column('kB', lambda r, _: f'{r.bytes / 1e3:,.1f}'),
    Column('MMACs', lambda r, _: f'{r.macs / 1e6:,.2f}'),
    Column('GBitOPs', lambda r, _: f'{r.bitops / 1e9:,.3f}'),
    Column('BitOPs %', lambda r, t: _share(r.bitops, t.bitops), 'share'),
    Column('ms', lambda r, _: f'{r.seconds * 1e3:,.2f}'),
    Column('time %', lambda r, t: _share(r.seconds, t.seconds), 'share'),
)


def summary(total: CostTotals) -> list[tuple[str, str, str]]:
    """Name, value and remark of each figure at the top of the report."""
    return [
        ('Parameters', f'{total.params / 1e6:,.2f} M', 'batch norm included'),
        (
            'Packed size',
            f'{total.bytes / 1e6:,.2f} MB',
            f'{_times(total.float_bytes, total.bytes)} smaller than '
            f'{total.float_bytes / 1e6:,.2f} MB in float32',
        ),
        (
            'Weight bits',
            f'{total.weight_bits:.2f}',
            'mean over the weights of all layers',
        ),
        ('MACs', f'{total.macs / 1e9:,.2f} G', 'per image'),
        (
            'BitOPs',
            f'{total.bitops / 1e9:,.1f} G',
            f'{_times(total.float_bitops, total.bitops)} fewer than '
            f'{total.float_bitops / 1e9:,.0f} G in float32',
        ),
        (
            'Float pass',
            _duration(total.seconds),
            'float32 in PyTorch, not the quantized speed',
        ),
    ]


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f'{seconds * 1e3:.1f} ms'
    return f'{seconds:,.2f} s'


def _times(more: float, less: float) -> str:
    return f'{more / less:.1f}x' if less else '-'


def bytes_by_bits(rows: list[LayerCost]) -> list[Bar]:
    """Packed bytes of the layers by their weight bits, and of the rest."""
    layers = [row for row in rows if row.name != EVERYTHING_ELSE]
    sums: dict[int, int] = defaultdict(int)
    for row in layers:
        sums[row.w_bits] += row.bytes
    named = [
        (f'{bits} bits' if bits < FLOAT_BITS else 'float layers', sums[bits])
        for bits in sorted(sums)
    ]
    total = sum(row.bytes for row in rows)
    named.append(('norms and the rest', total - sum(sums.values())))
    return [
        Bar(name, n, f'{n / 1e6:,.3f} MB, {_share(n, total)}')
        for name, n in named
    ]


def bitops_by_part(rows: list[LayerCost]) -> list[Bar]:
    """BitOPs of the backbone, the neck, the head ..., in the model's order."""
    sums: dict[str, int] = defaultdict(int)
    for row in rows:
        sums[row.name.partition('.')[0]] += row.bitops
    total = sum(sums.values())
    return [
        Bar(part, n, f'{n / 1e9:,.2f} G, {_share(n, total)}')
        for part, n in sums.items()
        if part != EVERYTHING_ELSE
    ]


def longest_layers(rows: list[LayerCost]) -> tuple[list[Bar], str]:
    """The layers that take longest, and a sentence on the remaining time."""
    total = sum(row.seconds for row in rows)
    layers = [row for row in rows if row.name != EVERYTHING_ELSE]
    layers.sort(key=lambda row: -row.seconds)
    bars = [
        Bar(
            row.name,
            row.seconds,
            f'{row.seconds * 1e3:,.2f} ms, {_share(row.seconds, total)}',
        )
        for row in layers[:TOP_LAYERS]
        if row.calls
    ]
    shown, listed = (
        sum(row.seconds for row in some)
        for some in (layers[:TOP_LAYERS], layers)
    )
    return bars, (
        f'These {len(bars)} of {len(layers)} layers take '
        f'{_share(shown, total)} of a float32 pass, the other layers '
        f'{_share(listed - shown, total)}, and everything else (norms, '
        f'activations, resizing) {_share(total - listed, total)}.'
    )
