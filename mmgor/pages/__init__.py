"""Parts of HTML pages that are complete in themselves.

A page loads no script, font or image. All texts are escaped here, so that
callers hand over plain text.

- ``page``: the page, its figures, bars and tables
- ``lines``: line charts as SVG
- ``axes``: the ticks of their axes
- ``style``: the colours and layout
"""

from .lines import Series, line_chart
from .page import Bar, bars, bullets, cards, figure, html_page, table

__all__ = [
    'Bar',
    'Series',
    'bars',
    'bullets',
    'cards',
    'figure',
    'html_page',
    'line_chart',
    'table',
]
