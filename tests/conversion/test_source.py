"""Values written as the source of a config."""

import pytest

from mmgor.conversion.source import WIDTH, Code, assignment, render


def test_what_fits_is_one_line():
    value = dict(type='FPN', quant=Code('quant'), strides=[8, 16], one=(1,))
    assert render(value) == (
        "dict(type='FPN', quant=quant, strides=[8, 16], one=(1,))"
    )


def test_what_does_not_fit_has_a_line_per_entry():
    value = dict(first='x' * 40, second=dict(third='y' * 30))
    assert assignment('model', value) == (
        'model = dict(\n'
        f"    first='{'x' * 40}',\n"
        f"    second=dict(third='{'y' * 30}'),\n"
        ')\n'
    )


def test_keys_that_are_no_names_are_quoted():
    assert render({'*.conv': None}) == "{'*.conv': None}"


def test_lines_of_code_are_indented_where_they_stand():
    value = dict(heads=Code('[\n    one\n]'))
    assert render(value) == 'dict(\n    heads=[\n        one\n    ],\n)'


@pytest.mark.parametrize('width', range(55, 75))
def test_no_line_is_too_long(width):
    value = dict(a=dict(b=['x' * 10] * (width // 14), c='y' * 8), d=1)
    text = assignment('name', value)
    assert max(map(len, text.splitlines())) <= WIDTH
    scope = {}
    exec(text, scope)
    assert scope['name'] == value
