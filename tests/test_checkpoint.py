import pytest
import torch
from torch import nn

from mmgor.checkpoint import (
    check_any_match,
    check_resume,
    strip_training_keys,
)


def test_one_matching_key_is_enough():
    check_any_match(nn.Linear(2, 1), {'a.bias': 0}, 'a.', 'model')


def test_nothing_matching_names_both_sides():
    with pytest.raises(RuntimeError, match=r"'weight', 'bias'.*'foo'"):
        check_any_match(nn.Linear(2, 1), {'foo': 0}, '', 'model')


@pytest.mark.parametrize(
    'state, message',
    [
        ({'weight': torch.zeros(1, 2)}, r'1 missing \(bias\)'),
        (
            {
                'weight': torch.zeros(1, 2),
                'bias': torch.zeros(1),
                'x': torch.zeros(1),
            },
            r'1 unexpected \(x\)',
        ),
        (
            {'weight': torch.zeros(1, 3), 'bias': torch.zeros(1)},
            r'weight: \(1, 3\) instead of \(1, 2\)',
        ),
    ],
)
def test_resume_needs_every_key(state, message):
    with pytest.raises(RuntimeError, match=message):
        check_resume(nn.Linear(2, 1), state)


def test_resume_accepts_its_own():
    model = nn.Linear(2, 1)
    check_resume(model, model.state_dict())


def test_training_keys_are_stripped():
    state = {'kd_heads.a': 1, 'gor_weighting.b': 2, 'backbone.c': 3}
    assert strip_training_keys(state) == {'backbone.c': 3}
