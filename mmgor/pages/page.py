"""The page, its figures, bar charts and tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from .style import STYLE


@dataclass(frozen=True)
class Bar:
    """A line of a bar chart: ``label``, ``value``, and the value's text."""

    label: str
    value: float
    text: str


def html_page(title: str, facts: dict[str, str], body: str) -> str:
    """A complete page.

    Args:
        title (str): Heading.
        facts (dict[str, str]): What the page is about, by name.
        body (str): HTML of the other functions here.

    Returns:
        str: The page.
    """
    name = escape(title)
    described = ''.join(
        f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>'
        for k, v in facts.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{name}</title><style>{STYLE}</style></head>\n<body><main>'
        f'<h1>{name}</h1><dl>{described}</dl>\n{body}</main></body></html>\n'
    )


def cards(figures: Iterable[tuple[str, str, str]]) -> str:
    """Figures in boxes: name, value and remark of each."""
    boxes = ''.join(
        f'<div class="card"><b>{escape(name)}</b><strong>{escape(value)}'
        f'</strong><small>{escape(remark)}</small></div>'
        for name, value, remark in figures
    )
    return f'<section class="cards">{boxes}</section>\n'


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences."""
    items = ''.join(f'<li>{escape(text)}</li>' for text in sentences)
    return f'<ul>{items}</ul>\n'


def figure(title: str, remark: str, content: str) -> str:
    """A chart in a box.

    Args:
        title (str): What it shows.
        remark (str): A sentence below the title, or ''.
        content (str): Its HTML.
    """
    return (
        f'<figure><figcaption>{escape(title)}<small>{escape(remark)}</small>'
        f'</figcaption>{content}</figure>\n'
    )


def bars(title: str, lines: Sequence[Bar], remark: str = '') -> str:
    """A bar chart. Bars are boxes whose width is a percentage."""
    full = max((bar.value for bar in lines), default=0) or 1
    rows = ''.join(
        f'<div class="label">{escape(bar.label)}</div><div class="track">'
        f'<i style="width:{100 * bar.value / full:.2f}%"></i></div>'
        f'<div class="value">{escape(bar.text)}</div>'
        for bar in lines
    )
    return figure(title, remark, f'<div class="bars">{rows}</div>')


def table(
    columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]
) -> str:
    """A table that scrolls in its own box.

    Args:
        columns (Sequence[tuple[str, str]]): Title and kind of each: 'text',
            'number', or 'share' (a number in percent, drawn as a bar, too).
        rows (Iterable[Sequence[str]]): A text per column.
    """
    head = ''.join(
        f'<th class="{kind}">{escape(title)}</th>' for title, kind in columns
    )
    body = '\n'.join(
        '<tr>'
        + ''.join(_cell(kind, text) for (_, kind), text in zip(columns, row))
        + '</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f'<tbody>{body}</tbody></table></div>\n'
    )


def _cell(kind: str, value: str) -> str:
    text = escape(value)
    width = f' style="--w:{text}"' if kind == 'share' else ''
    return f'<td class="{kind}"{width}>{text}</td>'
