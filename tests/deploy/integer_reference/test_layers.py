"""Folded layers, against hand-computed values and fake quantization."""

import pytest
import torch
from torch import nn

from mmgor.deploy.integer_reference.layers import (
    fit_bias,
    fold_layer,
    integer_layer,
)
from mmgor.quantization import calibrate
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from tests.support.integers import (
    assert_one_step,
    check_layers,
    grid,
    ints,
    recorded,
    symmetric,
)


def test_a_bias_beyond_int32_makes_larger_steps():
    weight = ints(100, 100, 100, -7).view(4, 1)
    scale = torch.tensor([1.0, 2.0**-10, 0.0, 0.0], dtype=torch.float64)
    bias = torch.tensor([2.0**29, 2.0**21, -4.0, 0.0], dtype=torch.float64)
    fitted, steps = fit_bias(weight, scale, bias)
    # The bias gets 2**30 steps instead of 2**31, which halves the weight.
    assert fitted.flatten().tolist() == [100, 50, 0, 0]
    assert steps.tolist() == [1, 2.0**-9, 2.0**-28, 1]


def test_a_layer_by_hand():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0)).eval()
    quantize_layers(module, QuantPolicy(w_bits=4, a_bits=4), set())
    layer, norm = module
    layer.weight.data = torch.tensor([0.75, -1.75]).view(2, 1, 1, 1)
    layer.bias.data = torch.tensor([0.3, 1.0])
    for quantizer, scale in (
        (layer.weight_quantizer, torch.tensor([0.25, 0.25])),
        (layer.input_quantizer, torch.tensor([0.5])),
    ):
        quantizer.choose_range(signed=quantizer.for_weight)
        quantizer.set_ranges(scale, 0 * scale, None, None)
    norm.weight.data = torch.tensor([1.0, -2.0])
    norm.bias.data = torch.tensor([0.0, 0.5])
    norm.running_mean.data = torch.tensor([0.0, 3.0])
    norm.running_var.data = torch.tensor([1.0, 16.0])
    folded = fold_layer(layer, norm=norm)
    # Factors 1 and -2 / 4; the second bias is -(1 - 3) / 2 + 0.5.
    assert folded.weight.flatten().tolist() == [3, 7]
    assert folded.fraction_bits.tolist() == [16, 16]
    steps = [0.125 / 2**16, 0.0625 / 2**16]
    assert folded.scale.tolist() == pytest.approx(steps)
    assert folded.bias.tolist() == [157286, 24 * 2**16]
    x = torch.tensor([1.0, 1.3, 99.0]).view(1, 1, 1, 3)  # 2, 3, 15
    got = integer_layer(layer, x, grid(0.1, qmin=-8, qmax=30), norm=norm)
    # 0.3 + 0.375 q, and 1.5 + 0.4375 q.
    assert got.flatten().tolist() == [10, 14, 30, 24, 28, 30]


def test_pointwise_to_the_scales_of_a_depthwise_input():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
    )
    policy = QuantPolicy(
        w_bits=8,
        a_bits=4,
        input_quantizer=dict(type='LSQPlusQuantizer'),
        per_channel_depthwise=True,
    )
    quantize_layers(module, policy, set())
    calls = recorded(module, torch.randn(2, 3, 9, 9) + 1)
    depthwise = module[2].input_quantizer
    # Zero outside of the range: every value of a channel is positive.
    depthwise.offset.data[3] = 5 * depthwise.log_scale.exp()[3]
    target = depthwise.grid(calls['2'][0][0])
    assert target.scale.shape == (8,) and target.zero_point[3] == -5
    x, y = calls['0'][0]
    got = integer_layer(module[0], x, target, norm=module[1])
    with torch.no_grad():
        y = module[1](y)
        assert_one_step(got, target, y)
        out = module[2](y)
    target = symmetric(out)
    assert_one_step(integer_layer(module[2], y, target), target, out)


@pytest.mark.parametrize(
    'layer, shape',
    [
        (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (2, 4, 7, 5)),
        (nn.Conv2d(4, 6, 3, padding='same', dilation=2), (2, 4, 7, 5)),
        (nn.Linear(12, 5), (2, 7, 12)),
    ],
)
def test_other_kinds_of_layers(layer, shape):
    torch.manual_seed(0)
    module = nn.Sequential(layer)
    quantize_layers(module, QuantPolicy(w_bits=5, a_bits=7), set())
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    calls = recorded(module, torch.randn(shape))
    assert check_layers(module, calls)[:2] == (0, 0)


def test_what_cannot_be_folded_is_refused():
    module = nn.Sequential(nn.Conv2d(3, 4, 1))
    quantize_layers(module, QuantPolicy(), set())
    calibrate(module, [torch.randn(1, 3, 4, 4)], module)
    with pytest.raises(ValueError, match=r'folded.*got GroupNorm'):
        fold_layer(module[0], norm=nn.GroupNorm(2, 4))
    with pytest.raises(ValueError, match=r'call model\.eval\(\) first'):
        fold_layer(module[0], norm=nn.BatchNorm2d(4))
    x, target = torch.zeros(1, 3, 4, 4), grid(1.0)
    module[0].padding_mode = 'reflect'
    with pytest.raises(ValueError, match="padding_mode='zeros', got 'refl"):
        integer_layer(module[0], x, target)
