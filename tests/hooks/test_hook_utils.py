from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmgor.hooks.utils import check_batches, check_optimizer


def scalars():
    return dict(a=nn.Parameter(torch.ones(())), b=nn.Parameter(torch.ones(())))


def sgd(parameters, **kwargs):
    return torch.optim.SGD([dict(params=parameters, **kwargs)], lr=0.1)


def test_parameters_without_decay_are_accepted():
    mine, other = scalars(), nn.Parameter(torch.ones(1))
    check_optimizer(sgd([*mine.values(), other]), mine, 'the scalars')


def epochs_of(images, batch, epochs=1):
    """A runner whose loader drops the last batch."""
    loader = DataLoader(range(images), batch_size=batch, drop_last=True)
    return SimpleNamespace(
        train_dataloader=loader,
        max_epochs=epochs,
        max_iters=epochs * len(loader),
    )


def test_an_epoch_without_a_batch():
    check_batches(epochs_of(8, 4))
    check_batches(epochs_of(3, 4, epochs=0))  # calibration alone
    message = 'at least 4 images with batch_size=4 and drop_last=True, got 3'
    with pytest.raises(ValueError, match=message):
        check_batches(epochs_of(3, 4))


def test_parameters_that_a_constructor_left_out_are_added():
    """mmyolo's look for modules' weights and biases alone."""
    stock, mine = nn.Parameter(torch.ones(1)), scalars()
    optimizer = sgd([stock], weight_decay=0.1, momentum=0.8)
    check_optimizer(optimizer, mine, 'the scalars')
    first, own = optimizer.param_groups
    assert first['params'] == [stock]
    assert own['params'] == list(mine.values())
    assert own == dict(first, weight_decay=0, params=own['params'])
