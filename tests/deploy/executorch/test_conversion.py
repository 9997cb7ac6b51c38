"""Frozen networks as ExecuTorch programs."""

import pytest
import torch
from torch import nn

from mmgor.deploy.decomposed.graphs import DEQUANTIZE, export, is_call
from mmgor.deploy.decomposed.program import Weights, lower
from mmgor.deploy.executorch.conversion import (
    convert,
    separate_biases,
    separate_readers,
)
from tests.support.frozen import IntegerConv, Rounding, SmallNetwork


def network(bits):
    torch.manual_seed(0)
    images = torch.randn(1, 3, 16, 24)
    return SmallNetwork(bits, unit=1.07).eval(), images


def test_every_reader_has_its_own_dequantize():
    model, images = network(8)
    with torch.no_grad():
        module = lower(model, images, Weights.INTEGERS)[0].module()
        (wanted,) = module(images)

        def shared():
            calls = [n for n in module.graph.nodes if is_call(n, DEQUANTIZE)]
            return [len(n.users) for n in calls if len(n.users) > 1]

        assert shared()
        separate_readers(module)
        assert not shared()
        (got,) = module(images)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    export(module, images)


@pytest.mark.parametrize('bits', [8, 4])
def test_xnnpack_computes_what_torch_does(bits):
    pytest.importorskip('executorch')
    from executorch import runtime
    from executorch.kernels import quantized  # noqa: F401

    model, images = network(bits)
    program, folded = convert(model, images)
    assert folded == 3
    loaded = runtime.Runtime.get().load_program(program)
    (got,) = loaded.load_method('forward').execute([images])
    with torch.no_grad():
        (wanted,) = model(images)
    # A sum halfway between two integers may go to the other one.
    steps = ((got - wanted) / model.output.scale).abs()
    assert (steps > 0.1).float().mean() < 0.05
    assert steps.max() < 2.1


class TwoLevels(nn.Module):
    """A head that two levels share, with a step of its own for each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = IntegerConv(3, 4, nn.Identity())
        # A batch norm would be folded into a bias of each level.
        self.head.norm = nn.Identity()
        self.levels = nn.ModuleList(
            Rounding(step, -128, 127) for step in (1 / 32, 1 / 4)
        )
        self.output = Rounding(1 / 16, -128, 127)

    def forward(self, images):
        return [self.output(self.head(level(images))) for level in self.levels]


def test_every_layer_has_its_own_bias():
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        module = lower(TwoLevels(), images, Weights.INTEGERS)[0].module()
        wanted = module(images)

        def biases():
            conv = torch.ops.aten.conv2d.default
            return [n.args[2] for n in module.graph.nodes if is_call(n, conv)]

        assert len(biases()) == 2 and len(set(biases())) == 1
        separate_biases(module)
        assert len(set(biases())) == 2
        for ours, theirs in zip(wanted, module(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_xnnpack_adds_a_shared_bias_in_the_steps_of_each_level():
    pytest.importorskip('executorch')
    from executorch import runtime
    from executorch.kernels import quantized  # noqa: F401

    model, images = TwoLevels(), torch.randn(1, 3, 8, 8)
    program, _ = convert(model, images)
    loaded = runtime.Runtime.get().load_program(program)
    got = loaded.load_method('forward').execute([images])
    with torch.no_grad():
        wanted = model(images)
    for ours, theirs in zip(wanted, got, strict=True):
        assert ((ours - theirs) / model.output.scale).abs().mean() < 0.1


class Grouped(nn.Module):
    """A group norm reads what a convolution computes."""

    def __init__(self):
        super().__init__()
        self.stem = IntegerConv(3, 4, Rounding(1 / 32, -128, 127))
        self.stem.norm = nn.GroupNorm(2, 4)
        self.output = Rounding(1 / 16, -128, 127)

    def forward(self, images):
        return [self.output(self.stem(images))]


def test_a_layer_in_front_of_a_group_norm_is_refused():
    pytest.importorskip('executorch')
    images = torch.randn(1, 3, 16, 24)
    message = r'XNNPACK can not run stem in integers: .*group norm reads fl'
    with pytest.raises(ValueError, match=message):
        convert(Grouped().eval(), images)
