import pytest
import torch
from torch import nn

from mmgor.deploy.export.frozen import freeze
from mmgor.quantization import (
    DoReFaQuantizer,
    LSQPlusQuantizer,
    LSQQuantizer,
    MinMaxQuantizer,
    PACTQuantizer,
    QuantPolicy,
    calibrate,
)
from mmgor.quantization.convert import quantize_layers


def network(**quant):
    """A convolution called twice, a depthwise and a transposed one."""
    torch.manual_seed(0)
    net = nn.ModuleDict(
        dict(
            conv=nn.Conv2d(4, 4, 3, padding=1),
            depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4),
            up=nn.ConvTranspose2d(4, 6, 2, 2, groups=2),
            linear=nn.Linear(6, 5),
        )
    )
    quantize_layers(net, QuantPolicy.from_config(quant), set(), {'conv': 2})

    def forward(x):
        x = net['conv'](torch.relu(net['conv'](x)))
        x = net['up'](nn.functional.silu(net['depthwise'](x)))
        return net['linear'](x.flatten(2).transpose(1, 2))

    net.forward = forward
    return net


def compare(net, x):
    net.eval()
    frozen = freeze(net)
    # forward uses the layers in net: compute before they are replaced.
    expected = net(x)
    for name in list(net):
        net[name] = frozen[name]
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
    # A second pass starts with the first grid again.
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize(
    'kind',
    [
        LSQQuantizer,
        LSQPlusQuantizer,
        PACTQuantizer,
        DoReFaQuantizer,
        MinMaxQuantizer,
    ],
)
def test_frozen_network_computes_the_same(kind, bits):
    net = network(
        w_bits=bits, a_bits=bits, input_quantizer=dict(type=kind.__name__)
    )
    x = torch.randn(2, 4, 8, 8)
    calibrate(net, [x], net)
    compare(net, x)


@pytest.mark.parametrize('kind', ['LSQQuantizer', 'LSQPlusQuantizer'])
@pytest.mark.parametrize('offset', [-3.0, 300.0])
def test_scales_per_channel_and_zero_outside_the_range(kind, offset):
    net = network(
        w_bits=4,
        a_bits=4,
        input_quantizer=dict(type=kind),
        per_channel_depthwise=True,
        per_channel=False,
    )
    x = torch.randn(2, 4, 8, 8)
    calibrate(net, [x], net)
    if kind == 'LSQPlusQuantizer':
        for layer in net.children():
            quantizer = layer.input_quantizer
            quantizer.offset.data = offset * quantizer.log_scale.exp()
        zero_points = net['conv'].input_quantizer.grid(x).zero_point
        assert int(zero_points) == -offset
    compare(net, x)


def test_float_network():
    with pytest.raises(ValueError, match='no quantized layer; expected a con'):
        freeze(nn.Conv2d(1, 1, 1))


def test_uncalibrated_network():
    with pytest.raises(ValueError, match=r'4 quantized layers were never'):
        freeze(network())


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_diverged_network(value):
    net = network()
    calibrate(net, [torch.rand(2, 4, 8, 8)], net.forward)
    with torch.no_grad():
        net['linear'].bias[1] = value
    with pytest.raises(ValueError, match=r'linear\.bias is not finite'):
        freeze(net)
