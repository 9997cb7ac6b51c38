"""Quantizers on a device are calibrated and train as on the CPU."""

import pytest
import torch
from torch import nn

from mmgor.quantization import calibrate, uncalibrated_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from tests.support.device_steps import by_file
from tests.support.virtual_cuda import virtual_cuda

QUANTIZERS = [
    dict(),
    dict(per_channel=False),
    dict(input_quantizer=dict(type='LSQPlusQuantizer')),
    dict(input_quantizer=dict(type='PACTQuantizer')),
    dict(
        weight_quantizer=dict(type='DoReFaQuantizer'),
        input_quantizer=dict(type='DoReFaQuantizer'),
    ),
    dict(
        weight_quantizer=dict(type='MinMaxQuantizer'),
        input_quantizer=dict(type='MinMaxQuantizer'),
    ),
]


def layers(**quant):
    """An ordinary, a depthwise and a transposed convolution, one that is
    called twice with zeros, and a linear."""
    torch.manual_seed(0)
    convs = nn.ModuleDict(
        dict(
            plain=nn.Conv2d(3, 4, 3),
            depthwise=nn.Conv2d(4, 4, 3, groups=4),
            up=nn.ConvTranspose2d(4, 2, 2),
            dead=nn.Conv2d(2, 2, 1),
            linear=nn.Linear(2, 2),
        )
    )
    quantize_layers(convs, QuantPolicy(**quant), set(), {'dead': 2})

    def run(x):
        x = convs['up'](convs['depthwise'](convs['plain'](x).relu()))
        zeros = convs['dead'](0 * x) + convs['dead'](0 * x)
        return convs['linear']((x + zeros).flatten(2).transpose(1, 2)).sum()

    return convs, run


@pytest.mark.parametrize(
    'quant', QUANTIZERS, ids=lambda q: q.get('input_quantizer', q).__str__()
)
@pytest.mark.slow
def test_quantizers_are_calibrated_and_train_as_on_the_cpu(quant):
    inputs = torch.randn(8, 3, 32, 32)
    convs, run = layers(**quant)
    calibrate(convs, [inputs, 2 * inputs], run)
    run(inputs).backward()
    with virtual_cuda() as device:
        twins, run = layers(**quant)
        twins.to('cuda')
        x = inputs.cuda()
        calibrate(twins, [x, 2 * x], run)
        assert uncalibrated_layers(twins) == []
        device.waits.clear()
        run(x).backward()
        assert device.waits == {}
        twins.to('cpu')
    for name, value in convs.state_dict().items():
        assert torch.equal(value, twins.state_dict()[name]), name
    for name, value in convs.named_parameters():
        assert torch.equal(value.grad, twins.get_parameter(name).grad), name


def test_observing_an_input_waits_for_the_device_twice():
    """Once to check that it is finite, and once to copy the samples of all
    channels. For a weight only the check waits."""
    with virtual_cuda() as device:
        convs, run = layers()
        convs.to('cuda')
        calibrate(convs, [torch.randn(2, 3, 32, 32).cuda()], run)
        looks = by_file(device.waits)['quantization/quantizers/observer.py']
        assert looks == 3 * 6  # calls of layers
