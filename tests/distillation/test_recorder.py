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


def test_inputs_of_layers_come_call_by_call(model):
    model['norm'] = nn.LayerNorm(2)  # no convolution and no linear layer
    x, y = torch.ones(1, 2), torch.zeros(1, 2)
    with Recorder(model, ['layer_inputs']) as recorder:
        model['neck'](model['norm'](x))
        model['head'](x)
        model['head'](y)
    got = recorder['layer_inputs']
    assert list(got) == ['neck', 'head.0']
    assert got['head.0'][0] is x and got['head.0'][1] is y
    assert got['neck'][0].requires_grad
    assert not model['neck']._forward_pre_hooks


def test_what_is_kept_of_an_input_is_chosen(model):
    x = torch.ones(1, 2)
    with Recorder(model, ['layer_inputs'], keep=torch.clone) as recorder:
        model['neck'](x)
        model['head'][0](input=x)  # by keyword: not seen
        x += 1
    got = recorder['layer_inputs']
    assert list(got) == ['neck']
    assert torch.equal(got['neck'][0], torch.ones(1, 2))


def test_inputs_of_layers_in_a_reentrant_checkpoint(model):
    x = torch.ones(1, 2, requires_grad=True)
    with Recorder(model, ['layer_inputs']) as recorder:
        checkpoint(model['neck'], x, use_reentrant=True)
        model['head'](x)
    with pytest.raises(
        RuntimeError, match=r"'layer_inputs' ran under .*no_gr"
    ):
        recorder['layer_inputs']
