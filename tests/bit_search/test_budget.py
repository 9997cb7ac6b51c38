"""Budgets as a user writes them."""

import pytest

from mmgor.bit_search.budget import Budget, parse_drop, parse_size


@pytest.mark.parametrize(
    'text, size',
    [('0.6MB', 6e5), ('600 kB', 6e5), ('123', 123), ('1MiB', 2**20)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize('text', ['', 'MB', '6TB', '-1MB', '0MB', '1.2.3MB'])
def test_no_sizes(text):
    with pytest.raises(ValueError, match='--bytes'):
        parse_size(text)


def test_drops():
    assert parse_drop('mAP 0.5') == parse_drop('map0.5') == 0.5


@pytest.mark.parametrize('text', ['0.5', 'AP50 1', 'mAP', 'mAP 0', 'mAP x'])
def test_no_drops(text):
    with pytest.raises(ValueError, match='--budget'):
        parse_drop(text)


@pytest.mark.parametrize('mean', [0, 1.9, 8.1, float('nan')])
def test_no_mean_bits(mean):
    with pytest.raises(ValueError, match='--mean-bits'):
        Budget(mean)


@pytest.mark.parametrize('given', [{}, dict(mean_bits=4, size=5)])
def test_one_budget_at_a_time(given):
    with pytest.raises(ValueError, match='expected one budget'):
        Budget(**given)
