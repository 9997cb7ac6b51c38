"""Recording module outputs, and taps that do not exist."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmgor.distillation import Recorder, check_tap


@pytest.fixture
def model():
    return nn.ModuleDict(
        {'neck': nn.Linear(2, 2), 'head': nn.Sequential(nn.Linear(2, 1))}
    )


def test_output_is_caught_with_its_graph(model):
    with Recorder(model, ['neck', 'head.0']) as recorder:
        y = model['head'](model['neck'](torch.ones(1, 2)))
    assert recorder['head.0'] is y
    assert recorder['neck'].requires_grad


def test_hooks_are_gone_afterwards_even_after_an_error(model):
    with pytest.raises(KeyError), Recorder(model, ['neck']):
        raise KeyError
    assert not model['neck']._forward_hooks


def test_a_tap_that_never_fired_is_an_error(model):
    with Recorder(model, ['neck']) as recorder:
        model['neck'].forward(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="tap 'neck' never fired"):
        recorder['neck']


@pytest.mark.parametrize('reentrant', [True, False])
def test_a_tap_inside_a_reentrant_checkpoint_is_an_error(model, reentrant):
    x = torch.ones(1, 2, requires_grad=True)
    with Recorder(model, ['neck']) as recorder:
        checkpoint(model['neck'], x, use_reentrant=reentrant)
    if reentrant:
        with pytest.raises(RuntimeError, match=r"'neck' ran under .*no_gra"):
            recorder['neck']
    else:
        recorder['neck'].sum().backward()
        assert model['neck'].weight.grad is not None


def test_a_forward_without_gradient_is_recorded(model):
    with torch.no_grad(), Recorder(model, ['neck']) as recorder:
        y = model['neck'](torch.ones(1, 2))
    assert recorder['neck'] is y


def test_unknown_tap_lists_what_there_is(model):
    check_tap(model, 'head.0', 'student')
    with pytest.raises(ValueError, match=r"unknown tap 'nek' in the student"):
        check_tap(model, 'nek', 'student')
    with pytest.raises(ValueError, match=r"did you mean \['neck'\]"):
        check_tap(model, 'neckk', "teacher 'r101'")
