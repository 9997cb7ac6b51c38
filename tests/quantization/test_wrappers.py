import copy

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmgor.quantization import (
    QuantConv2d,
    QuantConvTranspose2d,
    QuantLinear,
    calibrate,
    quantized_layers,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, retinanet_cfg


def resnet(**kwargs):
    base = dict(
        type='QuantBackbone',
        backbone='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
    )
    return MODELS.build({**base, **kwargs})


def feed(model, batches=1, side=64):
    inputs = [torch.randn(2, 3, side, side) for _ in range(batches)]
    calibrate(model, inputs, lambda x: model(x))


def test_wrappers_return_the_stock_module():
    model = resnet()
    assert type(model).__name__ == 'ResNet'
    assert isinstance(model.conv1, nn.Conv2d)
    assert nn.Conv2d in type(model.conv1).__bases__


def test_float_checkpoint_matches_key_for_key():
    stock = MODELS.build(retinanet_cfg()).state_dict()
    student = MODELS.build(quantized_cfg())
    own = student.state_dict()
    assert set(stock) == {k for k in own if '_quantizer.' not in k}
    load_state_dict(student, stock)
    loaded = student.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in stock.items())


def test_float_checkpoint_does_not_report_quantizers_missing():
    stock = MODELS.build(retinanet_cfg()).state_dict()
    result = MODELS.build(quantized_cfg()).load_state_dict(stock, strict=False)
    assert result.missing_keys == []
    assert result.unexpected_keys == []


def test_a_file_that_matches_nothing_is_an_error():
    model = resnet()
    with pytest.raises(RuntimeError, match='backbone'):
        load_state_dict(model, {'foo.weight': torch.zeros(1)})


def test_parameters_are_the_same_objects():
    conv = nn.Conv2d(3, 4, 3)
    module = nn.Sequential(conv)
    weight = conv.weight
    quantize_layers(module, QuantPolicy(), set())
    assert module[0] is conv
    assert conv.weight is weight
    assert isinstance(conv, QuantConv2d)


def test_frozen_stages_freeze_their_scales():
    model = resnet(frozen_stages=1)
    model.train()
    assert not any(p.requires_grad for p in model.layer1.parameters())
    assert not any(p.requires_grad for p in model.conv1.parameters())
    trainable = model.layer2[0].conv1
    assert trainable.weight_quantizer.log_scale.requires_grad
    assert trainable.input_quantizer.log_scale.requires_grad


def test_first_layer_and_predictions_get_8_bits():
    student = MODELS.build(quantized_cfg(w_bits=2, a_bits=3))
    bits = {
        name: (layer.weight_quantizer.bits, layer.input_quantizer.bits)
        for name, layer in quantized_layers(student).items()
    }
    assert bits.pop('backbone.conv1') == (8, 8)
    assert bits.pop('bbox_head.retina_cls') == (8, 8)
    assert bits.pop('bbox_head.retina_reg') == (8, 8)
    assert set(bits.values()) == {(2, 3)}


def test_shared_head_has_a_scale_per_level():
    head = MODELS.build(quantized_cfg())
    layers = quantized_layers(head)
    shared = layers['bbox_head.cls_convs.0.conv'].input_quantizer
    alone = layers['neck.fpn_convs.0.conv'].input_quantizer
    assert (shared.num_scales, alone.num_scales) == (5, 1)


def test_unshared_head_has_one_scale():
    head = MODELS.build(
        dict(
            type='QuantHead',
            head='YOLOXHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
        )
    )
    scales = {
        layer.input_quantizer.num_scales
        for layer in quantized_layers(head).values()
    }
    assert scales == {1}


def test_shared_weights_are_rounded_once_for_all_levels(monkeypatch):
    """With the gradients of five times."""
    model = MODELS.build(quantized_cfg())
    feed(model)
    maps = [torch.randn(2, 16, n, n) for n in (16, 8, 4, 2, 1)]
    head = model.bbox_head
    names = [*quantized_layers(head)]

    def run():
        model.zero_grad()
        outputs = head(maps)
        sum(y.square().sum() for ys in outputs for y in ys).backward()
        return {k: p.grad for k, p in head.named_parameters()}

    calls = []
    for name, layer in quantized_layers(head).items():
        layer.weight_quantizer.register_forward_hook(
            lambda *_, name=name: calls.append(name)
        )
    once = run()
    assert sorted(calls) == sorted(names)
    calls.clear()
    monkeypatch.setattr(QuantConv2d, '_must_round_again', lambda self: True)
    wanted = run()
    assert sorted(calls) == sorted(names * 5)
    for key, gradient in wanted.items():
        torch.testing.assert_close(once[key], gradient, msg=key)


def test_a_weight_that_changes_is_rounded_again():
    """Also if the last forward pass failed."""
    model = MODELS.build(quantized_cfg())
    feed(model)
    maps = [torch.randn(2, 16, n, n) for n in (16, 8, 4, 2, 1)]
    head = model.bbox_head
    before = head(maps)[0][0]
    with pytest.raises(AttributeError):
        head([maps[0], None])
    with torch.no_grad():
        head.retina_cls.weight.mul_(-1)
    for layer in quantized_layers(head).values():
        assert layer._rounded is None
    after = head(maps)[0][0]
    bias = head.retina_cls.bias.view(-1, 1, 1)
    torch.testing.assert_close(after - bias, bias - before)


def test_a_pass_that_ctrl_c_broke_off():
    """It was never ended."""
    model = resnet()
    feed(model)
    layer, x = model.conv1, torch.randn(2, 3, 16, 16)
    layer.start_pass()
    before = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), before)
    with torch.no_grad():
        layer.weight.mul_(-1)
    torch.testing.assert_close(layer(x), -before)


def test_the_grid_of_images_is_not_trained():
    """It would need the gradient of the images. Fewer bits are trained."""
    for bits, trained in ((8, False), (4, True)):
        model = resnet(quant=dict(first_last_bits=bits))
        feed(model)
        model(torch.randn(2, 3, 64, 64))[-1].sum().backward()
        key = 'conv1.input_quantizer.log_scale'
        assert key in model.state_dict()
        trainable = dict(model.named_parameters())
        assert (key in trainable) == trained
        assert all(p.grad is not None for p in trainable.values())


@MODELS.register_module()
class NormFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return (self.conv(self.norm(x)),)


def test_a_grid_behind_a_trained_norm_is_trained():
    model = MODELS.build(dict(type='QuantBackbone', backbone='NormFirst'))
    assert isinstance(model.conv.input_quantizer.log_scale, nn.Parameter)


def test_a_forward_pass_that_failed_does_not_shift_levels():
    student = MODELS.build(quantized_cfg())
    calibrate(
        student,
        [torch.randn(2, 3, 64, 64)],
        lambda x: student(x, mode='tensor'),
    )
    student.eval()
    feats = student.extract_feat(torch.randn(1, 3, 64, 64))
    want = student.bbox_head(feats)
    student.bbox_head.forward_single(feats[0])
    got = student.bbox_head(feats)
    for a, b in zip(want[0], got[0]):
        torch.testing.assert_close(a, b)


def test_initialisers_find_the_layers():
    head = MODELS.build(quantized_cfg()).bbox_head
    head.init_weights()
    # RetinaHead initialises its convolutions with std 0.01 and its bias from a
    # prior.
    assert head.cls_convs[0].conv.weight.std().item() == pytest.approx(
        0.01, rel=0.2
    )
    assert head.retina_cls.bias[0].item() == pytest.approx(-4.595, abs=0.01)


@pytest.mark.parametrize(
    'layer, x',
    [
        (nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 8, 8)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), torch.randn(2, 4, 8, 8)),
        (nn.Linear(4, 6), torch.randn(5, 4)),
    ],
)
def test_eight_bits_are_close_to_float(layer, x):
    torch.manual_seed(0)
    want = copy.deepcopy(layer)(x)
    module = nn.Sequential(layer)
    quantize_layers(module, QuantPolicy(w_bits=8, a_bits=8), set())
    calibrate(module, [x], module)
    assert type(layer) in (QuantConv2d, QuantConvTranspose2d, QuantLinear)
    error = (module(x) - want).abs().mean() / want.abs().mean()
    assert error < 0.02


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('quantizer', ['LSQQuantizer', 'MinMaxQuantizer'])
def test_transposed_convs_scale_output_channels(groups, quantizer):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 8, 3, groups=groups, bias=False)
    # Output channels differ in size by orders of magnitude.
    size = torch.logspace(0, 3, 8)
    step = 8 // groups
    for out in range(8):
        group, column = divmod(out, step)
        rows = slice(group * step, (group + 1) * step)
        layer.weight.data[rows, column] *= size[out]
    x = torch.randn(2, 8, 6, 6)
    want = copy.deepcopy(layer)(x)
    module = nn.Sequential(layer)
    policy = QuantPolicy(
        w_bits=8, a_bits=8, weight_quantizer=dict(type=quantizer)
    )
    quantize_layers(module, policy, set())
    calibrate(module, [x], module)
    assert layer.weight_quantizer.num_scales == 8
    error = (module(x) - want).abs().mean((0, 2, 3))
    assert (error / want.abs().mean((0, 2, 3))).max() < 0.03


def test_per_tensor_weights_have_one_scale():
    module = nn.Sequential(nn.Conv2d(4, 6, 3))
    quantize_layers(module, QuantPolicy(per_channel=False), set())
    assert module[0].weight_quantizer.log_scale.shape == (1,)
    calibrate(module, [torch.randn(1, 4, 8, 8)], module)
    assert len(module[0].quantized_weight().unique()) <= 15


def test_a_shared_layer_is_quantized_once():
    conv = nn.Conv2d(4, 4, 1)
    module = nn.ModuleList([conv, conv])
    quantize_layers(module, QuantPolicy(), set())
    assert module[0] is module[1]


@pytest.mark.parametrize(
    'quant, message',
    [
        (dict(w_bits=1), 'w_bits must be an integer from 2 to 8, got 1'),
        (dict(a_bits=9), 'a_bits must be an integer from 2 to 8, got 9'),
        (dict(bits=4), r"unknown key\(s\) \['bits'\] in quant"),
        (dict(weight_quantizer=dict(type='LSK')), 'unknown weight_quantizer'),
        (dict(overrides={'nope*': None}), "'nope\\*' matches no layer"),
        (dict(overrides={'conv1': dict(w_bits=33)}), 'from 2 to 8, got 33'),
        (dict(overrides={'conv1': dict(bits=4)}), "'w_bits' and/or 'a_bits'"),
        (dict(overrides={'conv1': 8}), "'a_bits', got 8"),
        (dict(overrides=['conv1']), 'overrides must be a dict'),
        (dict(per_channel='no'), "per_channel must be True or False, got 'n"),
        (
            dict(input_quantizer=dict(type='LSQQuantizer', bits=2)),
            r"input_quantizer must not set \['bits'\]",
        ),
        ('w4', "quant must be a dict, got 'w4'"),
    ],
)
def test_bad_policy(quant, message):
    with pytest.raises(ValueError, match=message):
        resnet(quant=quant)


def test_overrides_win_and_none_keeps_float():
    model = resnet(
        quant=dict(
            overrides={'layer4.*': dict(w_bits=6), 'layer4.1.conv1': None}
        )
    )
    assert type(model.layer4[1].conv1) is nn.Conv2d
    other = model.layer4[0].conv1
    assert other.weight_quantizer.bits == 6
    assert other.input_quantizer.bits == 4


def test_nothing_to_quantize_is_an_error():
    with pytest.raises(ValueError, match='no layer to quantize'):
        quantize_layers(nn.Sequential(nn.ReLU()), QuantPolicy(), set())
