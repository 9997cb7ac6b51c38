"""Line charts as SVG. Colours are those of the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .axes import bounds, log_ticks, ticks
from .page import figure
from .style import COLOURS

#: Longer curves are drawn through the means of as many groups of points.
MOST_POINTS = 300
#: Curves with at most this many points show each of them.
_DOTTED = 60
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 8, 36


@dataclass(frozen=True)
class Series:
    """A curve: its ``label`` and points ``(x, y)`` with increasing x."""

    label: str
    points: Sequence[tuple[float, float]]


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    remark: str = '',
    log: bool = False,
) -> str:
    """A figure with a chart of several curves.

    Points that are not finite, or not positive on a logarithmic axis, are
    left out. Above :data:`MOST_POINTS` points, means are drawn.

    Args:
        title (str): What it shows.
        series (Sequence[Series]): The curves.
        x_label (str): What x counts.
        remark (str): A sentence below the title.
        log (bool): Whether the y axis is logarithmic.

    Returns:
        str: HTML; '' if no curve has a point.
    """
    curves = [Series(s.label, shown_points(s.points, log)) for s in series]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ''
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    x_ends = (min(xs), max(xs)) if min(xs) < max(xs) else bounds(xs)
    frame = _Frame(*x_ends, *bounds(ys, log), log)
    drawn = ''.join(
        _curve(frame, curve, number % COLOURS)
        for number, curve in enumerate(curves)
    )
    legend = ''.join(
        f'<span><i class="c{number % COLOURS}"></i>{escape(curve.label)} '
        f'<b>{short(curve.points[-1][1])}</b></span>'
        for number, curve in enumerate(curves)
    )
    svg = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{_axes(frame, x_label)}{drawn}</svg>'
    )
    return figure(title, remark, f'<div class="legend">{legend}</div>{svg}')


def shown_points(
    points: Sequence[tuple[float, float]], log: bool
) -> list[tuple[float, float]]:
    """The points that can be drawn; means of groups if there are many."""
    good = [
        (x, y)
        for x, y in points
        if math.isfinite(x) and math.isfinite(y) and not (log and y <= 0)
    ]
    size = -(-len(good) // MOST_POINTS)
    if size <= 1:
        return good
    groups = [good[i : i + size] for i in range(0, len(good), size)]
    return [
        (sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g))
        for g in groups
    ]


def short(value: float) -> str:
    """A number with at most four digits that count.

    Example:
        >>> short(0.123456), short(12345.6), short(2.0)
        ('0.1235', '12,346', '2')
    """
    return f'{value:,.0f}' if abs(value) >= 1e4 else f'{value:.4g}'


@dataclass(frozen=True)
class _Frame:
    """The ends of both axes, and where a point is in the picture."""

    left: float
    right: float
    low: float
    high: float
    log: bool

    def x(self, value: float) -> float:
        share = (value - self.left) / (self.right - self.left)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = map(math.log10, (low, high, value))
        share = (value - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _axes(frame: _Frame, x_label: str) -> str:
    rows = (log_ticks if frame.log else ticks)(frame.low, frame.high)
    bottom = _HEIGHT - _BOTTOM
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
        f'y1="{frame.y(value):.1f}" y2="{frame.y(value):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{frame.y(value) + 4:.1f}" '
        f'text-anchor="end">{short(value)}</text>'
        for value in rows
    ]
    parts += [
        f'<text x="{frame.x(value):.1f}" y="{bottom + 15}" '
        f'text-anchor="middle">{short(value)}</text>'
        for value in ticks(frame.left, frame.right)
        if frame.right - frame.left >= 3 or value == int(value)
    ]
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 5}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    return ''.join(parts)


def _curve(frame: _Frame, curve: Series, colour: int) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in curve.points]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
    dots = ''
    if len(places) <= _DOTTED:
        dots = ''.join(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.5"><title>'
            f'{escape(curve.label)}: {short(y)} at {short(x)}</title></circle>'
            for (left, top), (x, y) in zip(places, curve.points)
        )
    return f'<g class="c{colour}"><polyline points="{path}"/>{dots}</g>'
