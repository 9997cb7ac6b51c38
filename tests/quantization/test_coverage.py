"""Layers that stay in float, and the log lines about them."""

import io
import logging

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.logging import MMLogger
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from mmgor.quantization import (
    QuantConv2d,
    QuantPolicy,
    calibrate,
    float_line,
    layer_table,
    quantized_layers,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.coverage import float_shares
from mmgor.registry import MODELS
from tests.support.models import retinanet_cfg


@pytest.fixture
def log():
    """The text that the current logger got."""
    logger = MMLogger.get_current_instance()
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter('%(levelname)s %(message)s'))
    logger.addHandler(handler)
    yield text
    logger.removeHandler(handler)


class Conv2d(nn.Conv2d):
    """A class with the name of torch's, but with a norm and an activation."""

    def __init__(self, *args):
        super().__init__(*args)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x):
        return self.norm(super().forward(x)).relu()


class Flipped(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, -weight, bias)


class Linear(nn.Linear):
    """A linear with an update of its input."""

    def __init__(self, *args):
        super().__init__(*args)
        self.update = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return super().forward(x @ self.update)


def patched():
    layer = nn.Conv2d(4, 4, 1)
    layer.forward = lambda x: nn.Conv2d.forward(layer, x) + 1
    return layer


OWN = [
    (lambda: Conv2d(4, 4, 1), 'Conv2d has no quantized form'),
    (lambda: Flipped(4, 4, 1), 'Flipped has no quantized form'),
    (patched, 'forward or weight was replaced'),
    (lambda: weight_norm(nn.Conv2d(4, 4, 1)), 'weight was replaced'),
    (lambda: spectral_norm(nn.Conv2d(4, 4, 1)), 'weight was replaced'),
    (
        lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        'ParametrizedConv2d has no quantized form',
    ),
]


@pytest.mark.parametrize('make, why', OWN)
@pytest.mark.filterwarnings('ignore:.*weight_norm.*')
def test_own_classes_keep_their_forward_and_are_logged(make, why, log):
    torch.manual_seed(0)
    layer, x = make(), torch.randn(2, 4, 5, 5)
    layer.eval()
    kind, want = type(layer), layer(x)
    module = nn.Sequential(nn.Conv2d(4, 4, 1), layer)
    quantize_layers(module, QuantPolicy(), set())
    assert type(layer) is kind
    assert torch.equal(layer(x), want)
    assert list(quantized_layers(module)) == ['0']
    said = log.getvalue()
    assert said.startswith('WARNING Sequential: ')
    assert why in said and ': 1' in said
    assert layer_table(module)['layers'][1]['w_bits'] == 32


def test_a_linear_of_another_class_is_not_quantized():
    layer, x = Linear(4, 4), torch.randn(3, 4)
    want = layer(x)
    quantize_layers(nn.Sequential(layer), QuantPolicy(), set())
    assert torch.equal(layer(x), want)


def test_a_module_with_own_classes_only_stays_in_float(log):
    module = nn.Sequential(Conv2d(4, 4, 1))
    quantize_layers(module, QuantPolicy(), set())
    calibrate(module, [torch.randn(2, 4, 5, 5)], module)
    assert '100.0% of the weights stay in float' in log.getvalue()


def test_hooks_of_stock_layers_stay():
    layer = nn.Conv2d(4, 4, 1)
    layer.register_forward_hook(lambda *args: args[2] + 1)
    x = torch.randn(2, 4, 5, 5)
    want = layer(x)
    module = nn.Sequential(layer)
    quantize_layers(module, QuantPolicy(w_bits=8, a_bits=8), set())
    calibrate(module, [x], module)
    assert type(layer) is QuantConv2d
    torch.testing.assert_close(layer(x), want, rtol=0.1, atol=0.05)


def test_mmcvs_efficient_batch_norm_is_switched_off():
    """It would read the float weight without calling the convolution."""
    module = ConvModule(
        4, 4, 1, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True
    )
    quantize_layers(module, QuantPolicy(w_bits=2, a_bits=2), set())
    x = torch.randn(2, 4, 5, 5)
    calibrate(module, [x], module)
    module.eval()
    called = []
    module.conv.input_quantizer.register_forward_hook(
        lambda *args: called.append(True)
    )
    module(x)
    assert called == [True]


def test_quantized_layers_are_not_quantized_again(log):
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    quantize_layers(module[0:1], QuantPolicy(w_bits=2), set())
    quantize_layers(module, QuantPolicy(w_bits=6), set())
    bits = [x.weight_quantizer.bits for x in quantized_layers(module).values()]
    assert bits == [2, 6]
    with pytest.raises(ValueError, match='not quantized yet'):
        quantize_layers(module, QuantPolicy(), set())
    assert log.getvalue() == ''


def test_a_small_share_in_float_is_not_a_warning(log):
    module = nn.Sequential(nn.Conv2d(8, 8, 3), Flipped(4, 4, 1))
    quantize_layers(module, QuantPolicy(), set())
    # 16 of 576 + 16 weights
    assert log.getvalue().startswith('INFO Sequential: 2.7% of the weights')


def test_a_small_attention_layer_is_logged(log):
    module = nn.Sequential(nn.Conv2d(8, 32, 3), nn.MultiheadAttention(4, 1))
    quantize_layers(module, QuantPolicy(), set())
    # 64 of 2304 + 64 weights
    said = 'INFO Sequential: 2.7% of the weights stay in float: projections'
    assert log.getvalue().startswith(said)


def test_layers_of_overrides_are_not_logged(log):
    module = nn.Sequential(nn.Conv2d(4, 4, 1), Flipped(4, 4, 1))
    quantize_layers(module, QuantPolicy(overrides={'1': None}), set())
    assert log.getvalue() == ''
    assert [share.cause for share in float_shares(module)] == ['overrides']
    message = 'bits to 1, which stays in float: class Flipped has no quant'
    with pytest.raises(ValueError, match=message):
        quantize_layers(
            nn.Sequential(nn.Conv2d(4, 4, 1), Flipped(4, 4, 1)),
            QuantPolicy(overrides={'1': dict(w_bits=8)}),
            set(),
        )


def test_the_line_tells_the_share_of_each_cause(log):
    """Weights by hand: 6 * 16 = 96 in the neck (16 of them quantized),
    3 * 16 + 16 in an attention, 16 in a module that is not wrapped and 8 in an
    embedding."""

    class Own(nn.Conv2d):
        pass

    model = nn.Module()
    model.neck = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), Own(4, 4, 2)
    )
    model.neck.attention = nn.MultiheadAttention(4, 1)
    policy = QuantPolicy(overrides={'1': None})
    quantize_layers(model.neck, policy, set())
    model.roi_head = nn.Module()
    model.roi_head.mask_head = nn.Sequential(nn.Conv2d(4, 4, 1))
    model.queries = nn.Embedding(2, 4)
    line, much = float_line(model)
    every = 16 + 16 + 64 + 64 + 16 + 8
    assert much
    assert line.startswith(f'In float: {1 - 16 / every:.1%} of the weights (')
    for size, cause in [
        (64, 'class Own has no quantized form'),
        (64, 'projections that nn.MultiheadAttention does not call'),
        (16, 'overrides'),
        (16, 'not wrapped: roi_head'),
        (8, 'embeddings and other parameters outside layers'),
    ]:
        assert f'{size / every:.1%} {cause}' in line
    assert (
        'weights and 25.0% of the multiply-accumulates'
        in float_line(model, {'neck.0': 3, 'neck.1': 1})[0]
    )


def test_a_head_that_is_not_wrapped_is_named():
    cfg = retinanet_cfg()
    for part in ('backbone', 'neck'):
        kind = cfg[part].pop('type')
        cfg[part].update({'type': f'Quant{part.title()}', part: kind})
    model = MODELS.build(cfg)
    assert float_line(model)[0].endswith(' not wrapped: bbox_head)')


def test_a_teacher_is_not_counted():
    model = nn.ModuleDict(
        dict(
            backbone=nn.Sequential(nn.Conv2d(3, 4, 1), Flipped(4, 4, 1)),
            teacher_model=nn.Sequential(nn.Conv2d(3, 100, 1)),
        )
    )
    quantize_layers(model['backbone'], QuantPolicy(), set())
    (share,) = float_shares(model)
    assert share.layers == ['backbone.1']
    assert share.weights == pytest.approx(16 / (16 + 12))
