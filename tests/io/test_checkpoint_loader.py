import logging

import pytest
import torch
from torch import nn

from mmgor.io.checkpoint_loader import load_weights


def model():
    return nn.ModuleDict(dict(neck=nn.Linear(2, 1), norm=nn.BatchNorm1d(2)))


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmgor.io.checkpoint_loader.print_log',
        lambda text, **kwargs: lines.append((text, kwargs['level'])),
    )
    return lines


def test_all_weights_are_loaded(told):
    source, target = model(), model()
    state = source.state_dict()
    del state['norm.num_batches_tracked']  # as in files of an early torch
    state['kd_heads.neck.weight'] = torch.ones(1)
    load_weights(target, state, 'the file')
    for key, value in state.items():
        if not key.startswith('kd_heads.'):
            assert torch.equal(target.state_dict()[key], value), key
    assert not told


def test_weights_that_do_not_fit():
    state = model().state_dict()
    lacking = {k: v for k, v in state.items() if k != 'neck.bias'}
    deeper = {**state, 'neck.1.weight': torch.ones(1)}
    wide = {**state, 'neck.bias': torch.ones(2)}
    nan = {**state, 'neck.bias': torch.tensor([torch.nan])}
    for wrong, error, message in (
        (lacking, RuntimeError, r"the file lacks 1 keys .*\['neck\.bias'\]"),
        (deeper, RuntimeError, r"has 1 keys .* \['neck\.1\.weight'\]"),
        (wide, RuntimeError, 'the file does not fit its config: '),
        (nan, ValueError, 'the file has NaN or infinity'),
    ):
        with pytest.raises(error, match=message):
            load_weights(model(), wrong, 'the file')


def test_keys_of_no_part_are_told(told):
    state = {**model().state_dict(), 'ema.weight': torch.ones(1)}
    load_weights(model(), state, 'the file')
    ((text, level),) = told
    assert 'the file: 1 keys of the checkpoint are unused' in text
    assert "['ema.weight']" in text and level == logging.WARNING
