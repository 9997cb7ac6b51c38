import copy

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import nn

from mmgor.quantization import EvalBatchNorm2d, calibrate, correct_norms
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy


def test_eval_bn_keeps_its_statistics():
    conv = ConvModule(3, 4, 1, norm_cfg=dict(type='EvalBN', eps=0.001))
    conv.train()
    before = conv.state_dict()['bn.running_mean'].clone()
    conv(torch.randn(2, 3, 4, 4) + 7)
    assert isinstance(conv.norm, EvalBatchNorm2d)
    assert conv.norm.weight.requires_grad and conv.norm.eps == 0.001
    assert torch.equal(conv.state_dict()['bn.running_mean'], before)


def quantized_pair(bits, norm='EvalBN'):
    """A convolution of four channels, its norm, and batches for them."""
    torch.manual_seed(0)
    pair = ConvModule(
        3, 4, 3, norm_cfg=dict(type=norm, eps=1e-5), act_cfg=None
    )
    quantize_layers(pair, QuantPolicy(w_bits=bits, a_bits=bits), set())
    batches = [torch.randn(4, 3, 8, 8) + 1 for _ in range(3)]
    calibrate(pair, batches, pair)
    return pair, batches


def corrected(model, batches):
    """Its layers are calibrated already."""
    with correct_norms(model, batches, model) as moved:
        pass
    return moved


def moments(pair, batches, weight, rounded):
    """Mean and variance of the convolution's output, as averages over
    batches."""
    outputs = [
        F.conv2d(pair.conv.input_quantizer(x) if rounded else x, weight)
        for x in batches
    ]
    means = [y.mean((0, 2, 3)) for y in outputs]
    variances = [y.var((0, 2, 3)) for y in outputs]
    return torch.stack(means).mean(0), torch.stack(variances).mean(0)


@pytest.mark.parametrize('norm', ['BN', 'EvalBN'])
def test_statistics_follow_the_rounded_layer(norm):
    pair, batches = quantized_pair(2, norm)
    with torch.no_grad():
        plain = moments(pair, batches, pair.conv.weight, rounded=False)
        want = moments(pair, batches, pair.conv.quantized_weight(), True)
    pair.norm.running_mean.copy_(plain[0])
    pair.norm.running_var.copy_(plain[1])
    moved = corrected(pair, batches)
    torch.testing.assert_close(pair.norm.running_mean, want[0])
    torch.testing.assert_close(
        pair.norm.running_var, want[1], rtol=1e-3, atol=0
    )
    away = (want[0] - plain[0]) / plain[1].sqrt()
    assert moved['bn'] == pytest.approx(
        away.square().mean().sqrt().item(), rel=1e-3
    )


def test_what_other_images_taught_is_kept():
    """The statistics are of images with five times the contrast: they move by
    as many standard deviations as those of the batches do."""
    pair, batches = quantized_pair(2)
    other = copy.deepcopy(pair)
    with torch.no_grad():
        mean, var = moments(pair, batches, pair.conv.weight, rounded=False)
    pair.norm.running_mean.copy_(mean)
    pair.norm.running_var.copy_(var)
    other.norm.running_mean.copy_(mean + 5)
    other.norm.running_var.copy_(25 * var)
    corrected(pair, batches)
    corrected(other, batches)
    torch.testing.assert_close(
        (other.norm.running_mean - mean - 5) / 5,
        pair.norm.running_mean - mean,
        rtol=1e-3,
        atol=1e-5,
    )
    torch.testing.assert_close(
        other.norm.running_var / 25,
        pair.norm.running_var,
        rtol=1e-3,
        atol=0,
    )


def test_without_rounding_nothing_moves():
    pair, batches = quantized_pair(8)
    pair.conv.weight_quantizer.quantize = lambda x, slot: x
    pair.conv.input_quantizer.quantize = lambda x, slot: x
    before = copy.deepcopy(pair.state_dict())
    assert corrected(pair, batches)['bn'] == pytest.approx(0)
    for key, value in pair.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_only_statistics_change():
    pair, batches = quantized_pair(2)
    pair.norm.train(True)
    flags = {name: m.training for name, m in pair.named_modules()}
    before = copy.deepcopy(pair.state_dict())
    random = torch.random.get_rng_state()
    corrected(pair, batches)
    changed = {
        key
        for key, value in pair.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == {'bn.running_mean', 'bn.running_var'}
    assert {name: m.training for name, m in pair.named_modules()} == flags
    assert pair.norm.momentum == 0.1
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_silenced_channel_is_not_amplified():
    """Its rounded weights are all zero."""
    pair, batches = quantized_pair(2)
    with torch.no_grad():
        pair.conv.weight_quantizer.log_scale[1] = 5.0
    var = pair.norm.running_var.clone()
    corrected(pair, batches)
    torch.testing.assert_close(pair.norm.running_var[1], var[1] / 100)


class Levels(nn.Module):
    """A head on three levels, the last of one pixel, with a norm of each
    level, one that all levels share, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.own = nn.ModuleList(EvalBatchNorm2d(4) for _ in range(3))
        self.shared = EvalBatchNorm2d(4)
        self.unused = nn.BatchNorm2d(4)
        quantize_layers(
            self, QuantPolicy(w_bits=2, a_bits=2), set(), dict(conv=3)
        )

    def forward(self, levels):
        self.conv.input_quantizer.reset_slot()
        for norm, x in zip(self.own, levels):
            self.shared(norm(self.conv(x)))


def test_norms_of_levels():
    torch.manual_seed(0)
    head = Levels()
    batch = [torch.randn(1, 3, side, side) for side in (8, 4, 1)]
    calibrate(head, [batch], head)
    before = copy.deepcopy(head.state_dict())
    moved = corrected(head, [batch])
    assert set(moved) == {'own.0', 'own.1', 'shared'}
    conv, level = head.conv, batch[1]
    with torch.no_grad():
        plain = conv._conv_forward(level, conv.weight, conv.bias)
        rounded = conv._conv_forward(
            conv.input_quantizer(level, 1), conv.quantized_weight(), conv.bias
        )
    shift = rounded.mean((0, 2, 3)) - plain.mean((0, 2, 3))
    unit = ((1 + 1e-5) / (plain.var((0, 2, 3)) + 1e-5)).sqrt()
    torch.testing.assert_close(head.own[1].running_mean, shift * unit)
    for name in ('own.2', 'unused'):
        key = f'{name}.running_mean'
        assert torch.equal(head.state_dict()[key], before[key])
    # No call is kept for a checkpoint that would run it again.
    assert not head.conv.input_quantizer._slots.used
