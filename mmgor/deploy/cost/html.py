"""The cost report as one HTML page."""

from mmgor.pages import bars, bullets, cards, html_page, table

from .figures import (
    COLUMNS,
    bitops_by_part,
    bytes_by_bits,
    longest_layers,
    summary,
)
from .rows import LayerCost, total_costs


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
    charts = (
        bars('Packed bytes by weight bits', bytes_by_bits(rows))
        + bars('BitOPs by part', bitops_by_part(rows))
        + bars('Layers that take longest', *longest_layers(rows))
    )
    layers = table(
        [(column.title, column.kind) for column in COLUMNS],
        [[column.show(row, total) for column in COLUMNS] for row in rows],
    )
    return html_page(
        title,
        facts,
        f'{cards(summary(total))}<section class="charts pair">{charts}'
        f'</section>\n<h2>How to read it</h2>{bullets(notes)}'
        f'<h2>All layers</h2>{layers}',
    )
