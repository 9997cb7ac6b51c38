"""Frozen networks as ExecuTorch programs."""

import pytest
import torch

from mmgor.deploy.decomposed.graphs import export, is_call
from mmgor.deploy.decomposed.program import Weights, lower
from mmgor.deploy.executorch.conversion import (
    DEQUANTIZE,
    convert,
    separate_readers,
)
from tests.support.frozen import SmallNetwork


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
