import pytest
import torch
from torch import nn

from mmgor.hooks.utils import check_optimizer


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
    with pytest.raises(
        RuntimeError, match=r"'gor_weighting\.': dict\(decay_mult=0\.0\)"
    ):
        check_optimizer(optimizer, mine, 'the scalars')


def test_parameters_must_be_in_the_optimizer():
    optimizer = sgd([nn.Parameter(torch.ones(1))])
    with pytest.raises(RuntimeError, match=r"the scalars .* 2 .*'a', 'b'"):
        check_optimizer(optimizer, scalars(), 'the scalars')
