"""Frozen networks as ncnn graphs, and what ncnn computes from them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2dPack
from torch import nn

from mmgor.deploy.ncnn.translation import to_ncnn
from tests.support.frozen import IntegerConv, Rounding, SmallNetwork

SIZE = (16, 24)


class InputsNetwork(nn.Module):
    """Rounds the inputs of its convolutions, and nothing else."""

    def __init__(self, bits=7, groups=1):
        super().__init__()

        def conv(inputs, outputs, rounding, **options):
            return IntegerConv(inputs, outputs, rounding, **options)

        unsigned = Rounding(0.11, 0, 2**bits - 1)
        self.stem = conv(12, 8, Rounding(0.03, -128, 127))
        self.first = conv(8, 8, unsigned, groups=groups)
        self.depthwise = conv(8, 8, Rounding(0.4, -8, 7), groups=8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.head = conv(16, 4, Rounding(0.06, -128, 127), bias=False)

    def forward(self, images):
        x = torch.cat(
            [images[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1
        )
        x = F.max_pool2d(torch.relu_(self.stem(x)), 3, 2, 1)
        y = F.silu(x + self.first(x)) * self.scale
        z = F.leaky_relu(self.norm(self.depthwise(y)), 0.1)
        gate = F.hardsigmoid(self.gate(F.adaptive_avg_pool2d(z, 1)))
        up = F.interpolate(gate * z, scale_factor=2.0)[..., 1:, :]
        y = F.interpolate(y.sigmoid() * y, size=up.shape[2:])
        return [self.head(torch.cat([up, y], 1)), z]


@pytest.fixture
def images():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def network(**options):
    torch.manual_seed(0)
    return InputsNetwork(**options).eval()


def run(graph, images, names):
    ncnn = pytest.importorskip('ncnn')
    text, weights = graph.files()
    net = ncnn.Net()
    net.opt.use_fp16_storage = False
    net.opt.use_fp16_packed = False
    net.load_param_mem(text)
    net.load_model_mem(weights)
    extractor = net.create_extractor()
    extractor.input('images', ncnn.Mat(images[0].numpy()).clone())
    found = [np.array(extractor.extract(name)[1]) for name in names]
    return [torch.from_numpy(array)[None] for array in found]


@pytest.mark.parametrize('bits', [7, 4])
def test_ncnn_computes_what_torch_does(bits, images):
    model = network(bits=bits)
    with torch.no_grad():
        wanted = model(images)
    graph, folded = to_ncnn(model, images, ['a', 'b'])
    assert folded == 4
    for ours, theirs in zip(wanted, run(graph, images, ['a', 'b'])):
        # A value halfway between two steps may go to the other one.
        assert (ours - theirs).abs().mean() < 0.003 * ours.std()


def test_integers_and_scales_are_those_of_the_network(images):
    model = network()
    graph, _ = to_ncnn(model, images, ['a', 'b'])
    layers = [x for x in graph.layers if x.kind.startswith('Convolution')]
    assert [layer.params.get(8, 0) for layer in layers] == [1, 1, 1, 0, 1]
    head, conv, norm = layers[-1].weights, model.head, model.head.norm
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    count, integers = 4 * 16 * 9, conv.integers
    signs = gain.sign().view(-1, 1, 1, 1).char()
    stored = np.frombuffer(head[4 : 4 + count], np.int8)
    assert (stored == (integers * signs).numpy().ravel()).all()
    floats = np.frombuffer(head[4 + count :], np.float32)
    expected = 1 / (gain.abs() * conv.scale).detach().numpy()
    np.testing.assert_allclose(floats[4:8], expected, rtol=1e-6)
    np.testing.assert_allclose(floats[8:], [1 / 0.06], rtol=1e-6)


def test_a_small_range_is_clipped_once_and_only_where_it_must(images):
    graph, _ = to_ncnn(network(bits=4), images, ['a', 'b'])
    clips = [x.params for x in graph.layers if x.kind == 'Clip']
    # The first range is of a ReLU's result: nothing is below zero.
    assert clips == [
        {1: pytest.approx(15 * 0.11)},
        {0: pytest.approx(-8 * 0.4), 1: pytest.approx(7 * 0.4)},
    ]
    assert not any(
        x.kind == 'Clip' and 0 not in x.params
        for x in to_ncnn(network(bits=7), images, ['a', 'b'])[0].layers
    )


def refused(model, images):
    with pytest.raises(ValueError) as error:
        to_ncnn(model, images, ['a', 'b'])
    return str(error.value)


def test_unsigned_ranges_of_8_bits_are_refused_by_name(images):
    message = refused(network(bits=8), images)
    assert 'first.input_quantizer: it has a grid from 0 to 255' in message
    assert "quant=dict(target='ncnn')" in message


def test_groups_are_refused_by_name(images):
    assert 'of first: it has 2 groups' in refused(network(groups=2), images)


def test_a_rounded_sum_is_refused(images):
    torch.manual_seed(0)
    message = refused(SmallNetwork().eval(), images)
    assert 'ncnn can not have' in message


def test_unknown_operators_are_refused_by_name(images):
    class Turned(InputsNetwork):
        def forward(self, images):
            return [x.transpose(2, 3) for x in super().forward(images)]

    message = refused(Turned().eval(), images)
    assert 'ncnn can not have aten.transpose.int' in message


def test_deformable_convolutions_are_refused_by_name(images):
    network = nn.Sequential()
    network.neck = DeformConv2dPack(images.shape[1], 2, 3, padding=1)
    message = refused(network.eval(), images)
    assert 'ncnn can not have mmgor.deform_conv2d.default of neck' in message
