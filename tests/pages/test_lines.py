"""Curves are drawn where their values are."""

import math
import re

import pytest

from mmgor.pages import Series, line_chart
from mmgor.pages.lines import MOST_POINTS, short, shown_points
from tests.support.pages import Page


def drawn(html):
    """Points of each curve, in units of the picture."""
    return [
        [tuple(map(float, point.split(','))) for point in points.split()]
        for points in re.findall('polyline points="(.*?)"', html)
    ]


def chart(points, **options):
    return line_chart('t', [Series('a', points)], 'step', **options)


def test_equal_steps_are_equally_far_apart():
    (points,) = drawn(chart([(0, 0.0), (1, 5.0), (2, 10.0)]))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1, y1) == pytest.approx(((x0 + x2) / 2, (y0 + y2) / 2))
    assert x0 < x2
    assert y0 > y2  # SVG counts from the top


def test_equal_factors_are_equally_far_apart_on_a_log_axis():
    (points,) = drawn(chart([(0, 0.01), (1, 0.1), (2, 1.0)], log=True))
    assert points[1][1] == pytest.approx(
        (points[0][1] + points[2][1]) / 2, abs=0.1
    )


def test_what_cannot_be_drawn_is_left_out():
    nan = math.nan
    assert shown_points([(0, nan), (1, 2.0), (2, math.inf)], False) == [
        (1, 2.0)
    ]
    assert shown_points([(0, 0.0), (1, -1.0), (2, 3.0)], True) == [(2, 3.0)]
    assert chart([]) == chart([(0, nan)]) == ''


def test_long_curves_are_means():
    count = 2 * MOST_POINTS
    points = shown_points([(i, float(i)) for i in range(count)], False)
    assert points[:2] == [(0.5, 0.5), (2.5, 2.5)]
    assert len(points) == MOST_POINTS


def test_legend_has_names_and_last_values():
    html = line_chart(
        'mAP <i>',
        [
            Series('<b>', [(1, 0.25), (2, 0.5)]),
            Series('empty', []),
            Series('c', [(1, 3.0)]),
        ],
        'epoch & more',
        'a remark',
    )
    page = Page(html)
    assert page.texts['span'] == ['<b> ', 'c ']
    assert page.texts['b'] == ['0.5', '3']
    assert page.texts['figcaption'] == ['mAP <i>']
    assert page.texts['small'] == ['a remark']
    assert 'epoch & more' in page.texts['text']
    assert '<b>: 0.25 at 1' in page.texts['title']


def test_short():
    assert [short(x) for x in (0.0, 1.0, 1 / 3, 123456.7, 1e-5)] == [
        '0',
        '1',
        '0.3333',
        '123,457',
        '1e-05',
    ]
