"""Depthwise convolutions with one input scale per channel."""

import pytest
import torch
from torch import nn

from mmgor.quantization import (
    LSQPlusQuantizer,
    LSQQuantizer,
    calibrate,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy

KINDS = (LSQQuantizer, LSQPlusQuantizer)


def per_channel(cls, scales, offsets, **kwargs):
    quantizer = cls(
        bits=4, num_scales=len(scales), channels=len(scales), **kwargs
    )
    quantizer.choose_range(signed=True)
    quantizer.set_ranges(torch.tensor(scales), torch.tensor(offsets), 0, 0)
    return quantizer


@pytest.mark.parametrize('cls', KINDS)
def test_each_channel_is_rounded_as_by_its_own_quantizer(cls):
    torch.manual_seed(0)
    scales, offsets = [0.01, 0.3, 20.0], [-0.02, -0.6, -40.0]
    together = per_channel(cls, scales, offsets)
    x = torch.randn(2, 3, 5, 4) * torch.tensor([0.1, 2, 150])[:, None, None]
    weight = torch.randn_like(x)
    out = together(x)
    (out * weight).sum().backward()
    for i, (scale, offset) in enumerate(zip(scales, offsets)):
        alone = per_channel(cls, [scale], [offset])
        part = alone(x[:, i])
        (part * weight[:, i]).sum().backward()
        torch.testing.assert_close(out[:, i], part)
        for name, parameter in alone.named_parameters():
            grad = together.get_parameter(name).grad[i]
            torch.testing.assert_close(grad, parameter.grad[0])


def test_every_level_has_its_own_channels():
    quantizer = LSQQuantizer(bits=4, num_scales=4, channels=2)
    quantizer.choose_range(signed=False)
    scales = torch.tensor([1.0, 2.0, 3.0, 5.0])
    quantizer.set_ranges(scales, torch.zeros(4), None, None)
    x = torch.full((1, 2, 1, 1), 1000.0)
    tops = [quantizer(x).flatten().tolist() for _ in range(3)]
    expected = [[15, 30], [45, 75], [15, 30]]
    torch.testing.assert_close(tops, [[float(v) for v in r] for r in expected])


def depthwise(**quant):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 1, 1)
    )
    policy = QuantPolicy(w_bits=8, per_channel_depthwise=True, **quant)
    quantize_layers(module, policy, set())
    return module


@pytest.mark.parametrize('cls', KINDS)
def test_small_channels_survive_beside_large_ones(cls):
    module = depthwise(a_bits=8, input_quantizer=dict(type=cls.__name__))
    size = torch.tensor([0.01, 1.0, 10.0, 1000.0])[:, None, None]
    x = torch.rand(4, 4, 16, 16) * size
    calibrate(module, [x], module)
    quantizer = module[0].input_quantizer
    assert quantizer.log_scale.shape == (4,)
    assert module[1].input_quantizer.num_scales == 1
    quantizer.reset_slot()
    step = size / 255
    assert ((quantizer(x) - x).abs() < 2 * step).all()


def test_channel_scales_fold_into_the_weight():
    module = depthwise(a_bits=4)
    x = torch.rand(2, 4, 8, 8) * torch.tensor([1.0, 3, 9, 27])[:, None, None]
    calibrate(module, [x], module)
    layer = module[0]
    scale = layer.input_quantizer.log_scale.exp()
    integers = (x / scale[:, None, None]).round().clamp(0, 15)
    # Output channels 2 c and 2 c + 1 only read input channel c.
    folded = layer.quantized_weight() * scale.repeat_interleave(2).view(
        -1, 1, 1, 1
    )
    expected = nn.functional.conv2d(integers, folded, layer.bias, groups=4)
    torch.testing.assert_close(layer(x), expected)


def test_other_quantizers_refuse_scales_per_channel():
    with pytest.raises(ValueError, match=r"LSQPlusQuantizer.*got 'PACT"):
        depthwise(input_quantizer=dict(type='PACTQuantizer'))
