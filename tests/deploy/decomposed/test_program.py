import pytest
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from torch import nn

from mmgor.deploy.decomposed.program import Weights, lower
from mmgor.deploy.export.onnx_ops import dequantize
from tests.support.frozen import IntegerConv, Rounding, SmallNetwork

DECOMPOSED = torch.ops.quantized_decomposed
IMAGES = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def calls(program, target):
    return [node for node in program.graph.nodes if node.target == target]


def build(network, *args, **kwargs):
    torch.manual_seed(0)
    return network(*args, **kwargs).eval()


@pytest.mark.parametrize('weights', Weights)
@pytest.mark.parametrize('bits', [8, 4])
@torch.no_grad()
def test_program_computes_what_the_frozen_network_does(bits, weights):
    network = build(SmallNetwork, bits)
    program, folded = lower(network, IMAGES, weights)
    assert folded == 3
    (wanted,), (got,) = network(IMAGES), program.module()(IMAGES)
    assert len(wanted.unique()) > 20
    # The folded sums differ by float rounding: a tie may go the other way.
    assert (got != wanted).float().mean() < 1e-3
    assert (got - wanted).abs().max() <= 1 / 16


def test_stored_types():
    program, _ = lower(build(SmallNetwork, 4), IMAGES, Weights.INTEGERS)
    names = {
        str(node.target).partition('.')[0] for node in program.graph.nodes
    }
    assert not any(name.startswith('mmgor') for name in names)
    rounding = calls(program, DECOMPOSED.quantize_per_tensor.default)
    # Saturation clips the block's input above, its ReLU clips it below. The
    # head's input has 4 bits and no ReLU: it is clipped between roundings.
    steps = [node.args[1:3] for node in rounding]
    assert steps == [
        (1 / 32, 0),
        (1 / 8, 112),
        (1 / 16, 0),
        (1 / 8, -128),
        (1 / 8, -128),
        (1 / 4, 120),
        (1 / 4, 120),
        (1 / 16, 0),
    ]
    (clamp,) = calls(program, torch.ops.aten.clamp.default)
    assert clamp.args[1:] == (-2.0,)
    integers = [
        program.state_dict[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.target in program.state_dict
    ]
    assert sorted(v.shape[0] for v in integers if v.dtype == torch.int8) == [
        4,
        8,
        8,
    ]


class TwoLevels(nn.Module):
    """One convolution for two maps, with a batch norm for each."""

    def __init__(self):
        super().__init__()
        self.layer = IntegerConv(3, 4, Rounding(1 / 32, -128, 127))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        with torch.no_grad():
            self.norms[0].weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
            self.norms[1].weight.copy_(torch.tensor([4.0, 1.0, -1.0, 2.0]))

    def forward(self, x):
        layer, found = self.layer, []
        for norm in self.norms:
            weight = dequantize(layer.integers, layer.scale)
            rounded = layer.input_quantizer(x)
            found.append(norm(layer.conv._conv_forward(rounded, weight, None)))
        return found


@torch.no_grad()
def test_batch_norms_change_only_signs_and_scales():
    network = build(TwoLevels)
    program, folded = lower(network, IMAGES, Weights.INTEGERS)
    assert folded == 2
    for wanted, got in zip(network(IMAGES), program.module()(IMAGES)):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    stored = [
        tuple(
            program.state_dict[spec.target]
            for node in read.args[:2]
            for spec in program.graph_signature.input_specs
            if spec.arg.name == node.name
        )
        for read in calls(program, DECOMPOSED.dequantize_per_channel.default)
    ]
    layer = network.layer
    root = (1 + 1e-5) ** 0.5
    for (integers, scale), norm in zip(stored, network.norms):
        sign = norm.weight.sign().to(torch.int8).view(-1, 1, 1, 1)
        assert torch.equal(integers, layer.integers * sign)
        gain = norm.weight.abs() / root
        # Without a bias, a channel that is switched off has any scale.
        expected = torch.where(gain == 0, 1.0, gain * layer.scale)
        torch.testing.assert_close(scale, expected)


def test_what_int8_can_not_hold_is_refused_by_layer():
    network = build(SmallNetwork)
    network.block.input_quantizer = Rounding(torch.full((8,), 0.5), 0, 255)
    match = r'block\.input_quantizer .* one scale per channel \(8 of them\)'
    with pytest.raises(ValueError, match=match):
        lower(network, IMAGES, Weights.INTEGERS)
    rounding = Rounding(0.5, 0, 255)
    rounding.zero = torch.tensor(-3, dtype=torch.int32)
    network.block.input_quantizer = rounding
    match = r'block\.input_quantizer .* can not hold: .* zero point -3'
    with pytest.raises(ValueError, match=match):
        lower(network, IMAGES, Weights.INTEGERS)


def test_deformable_convolutions_are_refused_by_name():
    """Before a converter sees them."""
    network = nn.Sequential()
    network.neck = nn.Sequential(
        DeformConv2dPack(3, 3, 3, padding=1),
        ModulatedDeformConv2dPack(3, 3, 3, padding=1),
    )
    message = r'convolutions in neck\.0, neck\.1: LiteRT and ExecuTorch do not'
    with pytest.raises(ValueError, match=message):
        lower(network.eval(), IMAGES, Weights.ROUNDED)
