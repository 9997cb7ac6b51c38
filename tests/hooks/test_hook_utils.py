from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmgor.hooks.utils import check_optimizer, dataset_classes


def scalars():
    return dict(a=nn.Parameter(torch.ones(())), b=nn.Parameter(torch.ones(())))


def sgd(parameters, **kwargs):
    return torch.optim.SGD([dict(params=parameters, **kwargs)], lr=0.1)


def test_parameters_without_decay_are_accepted():
    mine, other = scalars(), nn.Parameter(torch.ones(1))
    check_optimizer(sgd([*mine.values(), other]), mine, 'the scalars')


def test_weight_decay_raises_with_the_line_to_paste():
    mine = scalars()
    optimizer = sgd(list(mine.values()), weight_decay=0.1)
    with pytest.raises(RuntimeError) as error:
        check_optimizer(optimizer, mine, 'the scalars')
    for key in ('gor_weighting.', 'fusion.logits', '_quantizer.'):
        assert f"'{key}': dict(decay_mult=0.0)" in str(error.value)


def test_parameters_must_be_in_the_optimizer():
    optimizer = sgd([nn.Parameter(torch.ones(1))])
    with pytest.raises(RuntimeError, match=r"the scalars .* 2 .*'a', 'b'"):
        check_optimizer(optimizer, scalars(), 'the scalars')


def joined(*classes):
    """Like mmdet's ConcatDataset of parts with unequal metainfo."""
    parts = [dict(classes=c, number=i) for i, c in enumerate(classes)]
    return SimpleNamespace(metainfo=parts)


def test_classes_of_a_data_set():
    one = SimpleNamespace(metainfo=dict(classes=('cat', 'dog')))
    assert dataset_classes(one) == ['cat', 'dog']
    assert dataset_classes(SimpleNamespace(metainfo={})) is None
    assert dataset_classes(object()) is None


def test_classes_of_joined_data_sets():
    cats = ['cat', 'dog']
    assert dataset_classes(joined(cats, tuple(cats), cats)) == cats
    assert dataset_classes(joined(None, None)) is None


@pytest.mark.parametrize('other', [['dog', 'cat'], ['cat'], None])
def test_joined_data_sets_of_other_classes(other):
    cats = ['cat', 'dog']
    with pytest.raises(ValueError) as error:
        dataset_classes(joined(cats, cats, other))
    text = str(error.value)
    assert f'{cats} in number 0 and {other} in number 2' in text
    assert 'Set metainfo=dict(classes=[...])' in text
