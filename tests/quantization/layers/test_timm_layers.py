"""Quantized forms of timm's own layers."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmgor.deploy.export.frozen import freeze
from mmgor.deploy.integer_reference.layers import fold_layer
from mmgor.quantization import QuantPolicy, calibrate
from mmgor.quantization.convert import call_layers, quantize_layers

layers = pytest.importorskip('timm.layers')
linear = pytest.importorskip('timm.layers.linear')
swin = pytest.importorskip('timm.models.swin_transformer_v2')
IMAGE = (2, 4, 9, 11)
KINDS = [
    'Conv2dSame',
    'StdConv2d',
    'StdConv2dSame',
    'ScaledStdConv2d',
    'ScaledStdConv2dSame',
    'Linear',
]


def build(kind):
    """A layer with random parameters, and an input for it."""
    torch.manual_seed(0)
    if kind == 'Linear':
        return linear.Linear(4, 6), torch.randn(5, 4)
    # An offset of the input must not reach the padding.
    layer = getattr(layers, kind)(4, 6, 3, stride=2, bias=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer, torch.randn(IMAGE) + 3


def wrap(layer, x, bits):
    module = nn.ModuleList([layer])
    offset = dict(type='LSQPlusQuantizer')
    policy = QuantPolicy(w_bits=bits, a_bits=bits, input_quantizer=offset)
    quantize_layers(module, policy, set())
    seen = []
    calibrate(module, [x], lambda x: seen.append(layer(x)))
    return module, seen[0]


@pytest.mark.parametrize('kind', KINDS)
def test_calibration_runs_in_float_and_eight_bits_are_close(kind):
    layer, x = build(kind)
    want = layer(x)
    _, seen = wrap(layer, x, 8)
    assert type(layer).__module__ == 'mmgor.quantization.layers.timm_layers'
    torch.testing.assert_close(seen, want)
    got = layer(x)
    assert not torch.equal(got, want)
    assert (got - want).norm() < 0.02 * want.norm()


@pytest.mark.parametrize('kind', KINDS)
def test_copies_learn_and_compute_the_same(kind):
    layer, x = build(kind)
    module, _ = wrap(layer, x, 3)
    want = layer(x)
    want.square().sum().backward()
    assert layer.weight.grad.any()
    assert layer.weight_quantizer.log_scale.grad.any()
    for other in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        freeze(module)[0],
    ):
        torch.testing.assert_close(other(x), want)
    assert len(layer.weight_integers()[0].unique()) <= 7


def test_a_norm_with_an_activation_is_not_folded():
    module = nn.ModuleList([nn.Conv2d(4, 6, 1)])
    quantize_layers(module, QuantPolicy(), set())
    calibrate(module, [torch.randn(IMAGE)], module[0])
    norm = layers.BatchNormAct2d(6).eval()
    with pytest.raises(ValueError, match='BatchNormAct2d with ReLU inside'):
        fold_layer(module[0], 0, norm)
    plain = layers.BatchNormAct2d(6, apply_act=False).eval()
    fold_layer(module[0], 0, plain)


def test_attention_calls_its_projection():
    """Swin V2 reads the weight of ``qkv`` unless it is told to call it."""
    torch.manual_seed(0)
    attention = swin.WindowAttention(8, (2, 2), 2)
    nn.init.normal_(attention.q_bias)
    nn.init.normal_(attention.v_bias)
    x = torch.randn(3, 4, 8)
    want, called = attention(x), []
    attention.qkv.register_forward_hook(lambda *_: called.append(1))
    call_layers(attention)
    torch.testing.assert_close(attention(x), want)
    assert called == [1]
