"""Accepted values of a config, and the messages for others."""

import numpy as np
import pytest
import torch

from mmgor.io import config_values as values

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(
    'value', [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2.0)]
)
def test_numbers_of_all_libraries(value):
    found = values.number('t', value, '(0, inf)')
    assert found == 2.0
    assert type(found) is float


@pytest.mark.parametrize(
    'value', ['2', b'2', None, [2], (), {}, True, object, NAN, INF, 10**400]
)
def test_values_that_are_not_numbers(value):
    with pytest.raises(ValueError, match=r'^temperature must be .*positive'):
        values.number('temperature', value, '(0, inf)')


@pytest.mark.parametrize(
    'interval, inside, outside',
    [
        ('(0, 1]', (0.5, 1), (0, 1.1)),
        ('[0, 1)', (0, 0.5), (-0.1, 1)),
        ('(-inf, inf)', (-1e300, 0), (INF, NAN)),
        ('[0, inf)', (0, 1e300), (-1e-9, INF)),
    ],
)
def test_intervals(interval, inside, outside):
    assert [values.number('x', v, interval) for v in inside] == list(inside)
    for value in outside:
        with pytest.raises(ValueError, match=f'got {value}; chosen by hand.'):
            values.number('x', value, interval, 'chosen by hand')


@pytest.mark.parametrize('value', [3, np.int32(3), torch.tensor(3)])
def test_integers(value):
    found = values.integer('k', value, 1, 3)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize('value', [0, 4, 2.0, '2', True, None, NAN, [2]])
def test_values_that_are_not_integers(value):
    with pytest.raises(ValueError, match=r'^k must be an integer from 1 to'):
        values.integer('k', value, 1, 3)


def test_lists_of_integers():
    assert values.integers('strides', (8, np.int64(16)), 1, '[8]') == [8, 16]
    with pytest.raises(ValueError, match=r"strides\[1\] must be .* got '16'"):
        values.integers('strides', [8, '16'], 1, '[8]')
    for value in ((), [], '816', None, 8):
        with pytest.raises(ValueError, match=r'strides must be a list such'):
            values.integers('strides', value, 1, '[8]')


def test_booleans():
    assert values.boolean('offload', np.True_) is True
    for value in (1, 0, 'True', None, []):
        with pytest.raises(ValueError, match='offload must be True or False'):
            values.boolean('offload', value)


def test_texts_and_choices():
    assert values.text('tap', 'neck', 'bbox_head') == 'neck'
    for value in ('', None, 3, b'neck'):
        with pytest.raises(ValueError, match='tap must be a string such as'):
            values.text('tap', value, 'bbox_head')
    assert values.choice('form', 'iou', ('iou', 'ld')) == 'iou'
    for value in ([], {}, None, 'giou'):
        with pytest.raises(ValueError, match=r'unknown form .*; expected one'):
            values.choice('form', value, ('iou', 'ld'))


def test_the_nearest_word_is_suggested():
    message = (
        r"unknown key\(s\) \['w_bit'\] in quant.* \(did you mean 'w_bits'"
    )
    with pytest.raises(ValueError, match=message):
        values.known_keys('quant', dict(w_bit=4), ['w_bits', 'a_bits'])
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        values.choice('fusion', 'means', ('mean', 'learned'))
    assert values.nearest([3, None, 'zzz'], ['mean']) == ''
