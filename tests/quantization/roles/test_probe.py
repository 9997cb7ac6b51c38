from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm
from torch.nn.utils.prune import l1_unstructured

from mmgor.quantization.roles.probe import kernel_layers, probe


def pruned(layer):
    return l1_unstructured(layer, 'weight', 0.5)


class Net(nn.Module):
    """A module with named layers, which ``run`` applies to the input."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


def seen(run, **layers):
    net = Net(run, **layers)
    return probe(net, False, torch.zeros(1, 4, 8, 8))


def conv(**kwargs):
    return nn.Conv2d(4, 4, 3, padding=1, **kwargs)


def test_a_chain_has_one_first_and_one_last_layer():
    result = seen(
        lambda net, x: net.c(net.norm(net.b(net.a(x))).relu_()),
        c=conv(),
        b=conv(),
        a=conv(),
        norm=nn.BatchNorm2d(4),
    )
    assert (result.first, result.last) == (['a'], {'c'})
    assert result.calls == dict(a=1, b=1, c=1)


def test_both_layers_of_a_final_sum_are_last():
    result = seen(
        lambda net, x: dict(
            out=[net.c(net.a(x) + net.b(net.a(x))) + net.d(net.a(x))]
        ),
        **{name: conv() for name in 'abcd'},
    )
    assert result.last == {'c', 'd'}
    assert result.calls['a'] == 3


def test_every_branch_of_the_input_has_its_first_layer():
    result = seen(
        lambda net, x: net.c(net.a(x[:, :2]) + net.b(x[:, 2:].relu())),
        a=nn.Conv2d(2, 4, 1),
        b=nn.Conv2d(2, 4, 1),
        c=conv(),
    )
    assert result.first == ['a', 'b']


def test_layers_without_a_quantized_class_can_be_first_and_last():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return torch.einsum('oc,bchw->bohw', self.weight, x)

    result = seen(
        lambda net, x: net.out(net.inner(net.stem(x))),
        stem=Other(),
        inner=conv(),
        out=Other(),
    )
    assert (result.first, result.last) == (['stem'], {'out'})


def test_in_place_changes_hide_no_layer():
    def run(net, x):
        x -= 1
        out = net.b(net.a(x).flatten(2).transpose(1, 2)[None])
        out[..., :2] += 1
        return out[..., :2].sigmoid_()

    result = seen(run, a=conv(), b=nn.Linear(4, 4))
    assert (result.first, result.last) == (['a'], {'b'})


def test_features_are_kept_apart_from_predictions():
    def run(net, x):
        feature = net.a(x).relu()
        return feature, net.b(feature), net.c(feature + 1)

    result = seen(run, a=conv(), b=conv(), c=conv())
    assert (result.last, result.passed_on) == ({'b', 'c'}, {'a'})


def test_outputs_in_a_named_tuple_are_followed():
    output = namedtuple('output', 'box score')
    result = seen(
        lambda net, x: output(net.b(net.a(x)), net.c(x)),
        **{name: conv() for name in 'abc'},
    )
    assert (result.first, result.last) == (['a', 'c'], {'b', 'c'})


def test_layers_before_an_error_are_recorded():
    result = seen(
        lambda net, x: net.b(net.a(x)), a=conv(), b=nn.Conv2d(9, 1, 1)
    )
    assert isinstance(result.error, RuntimeError)
    assert (result.first, result.calls) == (['a'], dict(a=1))


def test_the_module_and_the_random_state_are_unchanged():
    norm, frozen = nn.BatchNorm2d(4), conv().requires_grad_(False)
    net = Net(
        lambda net, x: net.drop(net.norm(net.a(x))) + torch.rand(1),
        a=frozen,
        norm=norm,
        drop=nn.Dropout(),
    ).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    with torch.no_grad():
        assert probe(net, True, torch.zeros(2, 4, 8, 8)).first == ['a']
    assert torch.equal(torch.rand(3), want)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert norm.training and not frozen.weight.requires_grad
    assert not frozen._forward_hooks
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize('by', [weight_norm, spectral_norm, pruned])
@pytest.mark.filterwarnings('ignore:.*weight_norm.*')
def test_weights_that_hooks_compute_are_recomputed_in_the_copy(by):
    net = by(conv())
    kept = net.weight.clone()
    result = seen(lambda net, x: net.b(net.a(x)), a=net, b=conv())
    assert (result.first, result.last) == (['a'], {'b'})
    assert result.error is None
    assert torch.equal(net.weight, kept)


def test_norms_and_scales_are_not_kernels():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Parameter(torch.ones(1, 4, 1, 1))

    net = Net(
        None,
        a=conv(),
        norm=nn.LayerNorm([4, 8, 8]),
        gate=Gate(),
        table=nn.Embedding(3, 4),
        one=nn.Conv2d(1, 1, 1),
    )
    assert list(kernel_layers(net)) == ['a', 'one']
