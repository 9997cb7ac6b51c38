"""Quantized forms of mmcv's and mmdet's own layers."""

import copy
import pickle

import pytest
import torch
from mmcv.cnn import ConvAWS2d, ConvWS2d
from mmcv.cnn.bricks import Conv2dAdaptivePadding
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    MaskedConv2d,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    SAConv2d,
)
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.models.layers import NormedLinear
from mmengine.model import initialize
from torch import nn

from mmgor.deploy.export.frozen import freeze
from mmgor.deploy.packing.pack import pack_model, read_packed
from mmgor.quantization import (
    QuantPolicy,
    calibrate,
    layer_table,
    quantized_layers,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.layers import quant_layers
from mmgor.quantization.layers.quant_layers import QUANTIZED_CLASSES

IMAGE = (2, 4, 9, 11)
OFFSETS = (2, 18, 9, 11)
# Class -> its arguments and the shapes of its inputs.
LAYERS = {
    nn.Conv1d: (dict(padding=1), [(2, 4, 7)]),
    Conv2dAdaptivePadding: (dict(stride=2), [IMAGE]),
    ConvWS2d: (dict(padding=1), [IMAGE]),
    ConvAWS2d: (dict(padding=1), [IMAGE]),
    SAConv2d: (dict(padding=1, bias=False), [IMAGE]),
    MaskedConv2d: (dict(padding=1), [IMAGE]),
    DeformConv2d: (dict(padding=1), [IMAGE, OFFSETS]),
    DeformConv2dPack: (dict(padding=1), [IMAGE]),
    ModulatedDeformConv2d: (dict(padding=1), [IMAGE, OFFSETS, (2, 9, 9, 11)]),
    ModulatedDeformConv2dPack: (dict(padding=1), [IMAGE]),
    TridentConv: (dict(), [(3, *IMAGE)]),
}
KINDS = [*LAYERS, NormedLinear, 'deformable SAC']


def build(kind):
    """A layer with random parameters, and inputs for it."""
    torch.manual_seed(0)
    if kind is NormedLinear:
        layer, shapes = NormedLinear(4, 6), [(5, 4)]
    elif kind == 'deformable SAC':
        layer = SAConv2d(4, 6, 3, padding=1, bias=False, use_deform=True)
        shapes = [IMAGE]
    else:
        kwargs, shapes = LAYERS[kind]
        layer = kind(4, 6, 3, **kwargs)
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.3)
    return layer, [torch.randn(shape) for shape in shapes]


def wrap(layer, bits=8):
    module = nn.ModuleList([layer])
    quantize_layers(module, QuantPolicy(w_bits=bits, a_bits=bits), set())
    return module


def run(layer, inputs):
    out = layer(*inputs)
    return torch.stack(list(out)) if isinstance(out, list) else out


@pytest.mark.parametrize('kind', KINDS)
def test_calibration_runs_in_float_and_eight_bits_are_close(kind):
    layer, inputs = build(kind)
    want = run(copy.deepcopy(layer), inputs)
    keys = set(layer.state_dict())
    quantized = QUANTIZED_CLASSES[type(layer)]
    module = wrap(layer)
    assert type(layer) is quantized
    assert {k for k in layer.state_dict() if 'quantizer' not in k} == keys
    seen = []
    calibrate(module, [inputs], lambda x: seen.append(run(layer, x)))
    torch.testing.assert_close(seen[0], want, rtol=1e-5, atol=1e-5)
    got = run(layer, inputs)
    assert not torch.equal(got, want)
    assert (got - want).norm() < 0.02 * want.norm()


@pytest.mark.parametrize('kind', KINDS)
def test_weights_and_scales_learn(kind):
    layer, inputs = build(kind)
    module = wrap(layer, bits=4)
    calibrate(module, [inputs], lambda x: run(layer, x))
    run(layer, inputs).square().sum().backward()
    idle = [k for k, p in layer.named_parameters() if p.grad is None]
    # The stock forward pass of SAC does not use its bias.
    assert idle == []
    assert layer.weight.grad.any()
    assert layer.weight_quantizer.log_scale.grad.all()


@pytest.mark.parametrize('kind', KINDS)
def test_copies_and_frozen_copies_compute_the_same(kind):
    layer, inputs = build(kind)
    module = wrap(layer, bits=3)
    calibrate(module, [inputs], lambda x: run(layer, x))
    module.eval()
    if kind is TridentConv:
        inputs = [inputs[0][:1]]
    want = run(layer, inputs)
    for other in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        freeze(module)[0],
    ):
        torch.testing.assert_close(run(other, inputs), want)
    assert len(layer.weight_integers()[0].unique()) <= 7


@pytest.mark.parametrize('kind', KINDS)
def test_the_packed_file_holds_what_the_table_says(kind, tmp_path):
    layer, inputs = build(kind)
    module = wrap(layer, bits=4)
    calibrate(module, [inputs], lambda x: run(layer, x))
    sizes = pack_model(module, tmp_path / 'layer.mmgor', dict(classes=[]))
    assert sizes['tensor_bytes'] == layer_table(module)['total']['bytes']
    other = copy.deepcopy(module)
    other.load_state_dict(read_packed(tmp_path / 'layer.mmgor')[0])
    torch.testing.assert_close(run(other[0], inputs), run(layer, inputs))


@pytest.mark.parametrize('kind', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_offset_branches_read_the_float_input(kind):
    """Rounding to 2 bits does not move sampling positions."""
    layer, (x,) = build(kind)
    module = wrap(layer, bits=2)
    assert list(quantized_layers(module)) == ['0']
    calibrate(module, [x], layer)
    seen = []
    layer.conv_offset.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0])
    )
    layer(x)
    assert seen[0] is x


def test_the_standardised_weight_is_rounded():
    """The stock class subtracts the mean, so a mean must not cost integers."""
    layer, (x,) = build(ConvAWS2d)
    layer.weight.data += 100
    module = wrap(layer, bits=4)
    calibrate(module, [x], layer)
    assert len(layer.weight_integers()[0].unique()) > 10


def test_both_weights_of_sac_are_integers():
    layer, (x,) = build(SAConv2d)
    module = wrap(layer, bits=4)
    calibrate(module, [x], layer)
    integers, grid = layer.weight_integers()
    assert integers.shape == (6, 8, 3, 3)
    near, far = (integers * grid.scale.view(-1, 1, 1, 1)).chunk(2, 1)
    difference = (far - near - layer.weight_diff).abs()
    inside = integers.abs().amax((1, 2, 3)) < grid.qmax
    limit = grid.scale[inside].view(-1, 1, 1, 1)
    assert (difference[inside] <= 1.01 * limit).all()


@pytest.mark.parametrize('kind', [Conv2dAdaptivePadding, ConvAWS2d])
def test_initialisers_find_quantized_layers(kind):
    stock, _ = build(kind)
    module = wrap(copy.deepcopy(stock))
    for owner in (nn.ModuleList([stock]), module):
        initialize(owner, dict(type='Constant', val=0.5, layer='Conv2d'))
        assert (owner[0].weight == 0.5).all()


def test_a_timm_without_the_expected_layers(monkeypatch):
    """Older ones have them elsewhere."""
    monkeypatch.setattr(quant_layers, '_OPTIONAL', {'timm': '.no_such_file'})
    kind = type('Conv2dSame', (nn.Conv2d,), dict(__module__='timm.models'))
    with pytest.raises(ImportError, match=r'Conv2dSame .* timm >= 0\.9'):
        quant_layers.is_quantizable(kind(4, 4, 1))
    assert quant_layers.is_quantizable(nn.Conv2d(4, 4, 1))
