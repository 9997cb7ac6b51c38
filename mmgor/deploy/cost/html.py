"""The cost report as one HTML page.

The page is complete in itself: it loads no script, font or image. Bars are
boxes whose width is a percentage.
"""

from html import escape

from .figures import (
    COLUMNS,
    Bar,
    Column,
    bitops_by_part,
    bytes_by_bits,
    longest_layers,
    summary,
)
from .rows import CostTotals, LayerCost, total_costs


def report_html(
    rows: list[LayerCost],
    title: str,
    facts: dict[str, str],
    notes: list[str],
) -> str:
    """The report as one HTML page.

    Args:
        rows (list[LayerCost]): From ``layer_costs``.
        title (str): Heading.
        facts (dict[str, str]): Config, input size and other facts on the
            measurement, by name.
        notes (list[str]): Sentences on how to read the numbers.

    Returns:
        str: The page. All texts in it are escaped.
    """
    total = total_costs(rows)
    name = escape(title)
    described = ''.join(
        f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>'
        for k, v in facts.items()
    )
    cards = ''.join(
        f'<div class="card"><b>{escape(label)}</b><strong>{escape(value)}'
        f'</strong><small>{escape(remark)}</small></div>'
        for label, value, remark in summary(total)
    )
    items = ''.join(f'<li>{escape(note)}</li>' for note in notes)
    charts = (
        _chart('Packed bytes by weight bits', bytes_by_bits(rows))
        + _chart('BitOPs by part', bitops_by_part(rows))
        + _chart('Layers that take longest', *longest_layers(rows))
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{name}</title><style>{_STYLE}</style></head>\n<body><main>'
        f'<h1>{name}</h1><dl>{described}</dl>\n'
        f'<section class="cards">{cards}</section>\n'
        f'<section class="charts">{charts}</section>\n'
        f'<h2>How to read it</h2><ul>{items}</ul>\n'
        f'<h2>All layers</h2>{_table(rows, total)}</main></body></html>\n'
    )


def _chart(title: str, bars: list[Bar], remark: str = '') -> str:
    full = max((bar.value for bar in bars), default=0) or 1
    lines = ''.join(
        f'<div class="label">{escape(bar.label)}</div><div class="track">'
        f'<i style="width:{100 * bar.value / full:.2f}%"></i></div>'
        f'<div class="value">{escape(bar.text)}</div>'
        for bar in bars
    )
    return (
        f'<figure><figcaption>{escape(title)}<small>{escape(remark)}</small>'
        f'</figcaption><div class="bars">{lines}</div></figure>\n'
    )


def _table(rows: list[LayerCost], total: CostTotals) -> str:
    head = ''.join(
        f'<th class="{column.kind}">{escape(column.title)}</th>'
        for column in COLUMNS
    )
    body = '\n'.join(
        '<tr>' + ''.join(_cell(c, row, total) for c in COLUMNS) + '</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f'<tbody>{body}</tbody></table></div>'
    )


def _cell(column: Column, row: LayerCost, total: CostTotals) -> str:
    text = escape(column.show(row, total))
    width = f' style="--w:{text}"' if column.kind == 'share' else ''
    return f'<td class="{column.kind}"{width}>{text}</td>'


# Colours have names, with values for light and for dark mode.
_STYLE = """
:root{--page:#f6f7f9;--card:#fff;--line:#e1e5ea;--text:#1c2430;
--muted:#5b6675;--bar:#3d6fa5;--tint:#dbe7f3;--track:#eef1f5}
@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1a2028;
--line:#2c3440;--text:#e4e9ef;--muted:#98a4b3;--bar:#6ea3d8;
--tint:#2a4059;--track:#242c36}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1400px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:24px;margin:0 0 12px;overflow-wrap:anywhere}
h2{font-size:17px;margin:36px 0 12px}
dl{display:flex;flex-wrap:wrap;gap:6px 28px;margin:0 0 24px}
dl div{display:flex;gap:8px}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
.cards{display:grid;gap:12px;
grid-template-columns:repeat(auto-fit,minmax(180px,1fr))}
.card,figure,.scroll{background:var(--card);border:1px solid var(--line);
border-radius:8px}
.card{padding:14px 16px;display:flex;flex-direction:column}
.card b,.card small{font-weight:400;font-size:13px;color:var(--muted)}
.card strong{font-size:24px;font-weight:600;line-height:1.35;
white-space:nowrap}
.charts{display:grid;grid-template-columns:1fr 1fr;gap:12px;
margin-top:12px}
figure{margin:0;padding:16px;min-width:0}
figure:last-child{grid-column:1/-1}
figcaption{font-weight:600;margin-bottom:12px}
figcaption small{display:block;font-weight:400;color:var(--muted)}
.bars{display:grid;grid-template-columns:fit-content(45%) 1fr max-content;
gap:7px 12px;align-items:center;font-size:13px}
.label{overflow-wrap:anywhere}
.track{background:var(--track);border-radius:3px;height:14px}
.track i{display:block;height:100%;min-width:1px;border-radius:3px;
background:var(--bar)}
.value,td{font-variant-numeric:tabular-nums}
.value{color:var(--muted);text-align:right}
ul{margin:0;padding-left:20px;max-width:90ch;color:var(--muted)}
li{margin:4px 0}
.scroll{overflow:auto;max-height:85vh}
table{border-collapse:collapse;width:100%;font-size:12px}
th,td{padding:4px 6px;text-align:right;white-space:nowrap}
th{position:sticky;top:0;background:var(--card);color:var(--muted);
font-weight:600;box-shadow:inset 0 -1px var(--line)}
td{border-top:1px solid var(--line)}
.text{text-align:left}
td.share{background:linear-gradient(var(--tint),var(--tint)) left/var(--w)
100% no-repeat}
tbody tr:hover{background:var(--track)}
@media(max-width:800px){.charts{grid-template-columns:1fr}}
@media print{.scroll{max-height:none;overflow:visible}}
"""
