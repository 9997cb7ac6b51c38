"""Quantizers inside of what the user compiles."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmgor.quantization.quantizers import compiled
from mmgor.registry import MODELS
from tests.support.quantizers import ready

WEIGHT = dict(num_scales=4, per_channel=True, for_weight=True, signed=True)
CASES = {
    'LSQ weight': ('LSQQuantizer', WEIGHT),
    'LSQ weight, one scale': (
        'LSQQuantizer',
        dict(for_weight=True, signed=True),
    ),
    'LSQ input': ('LSQQuantizer', dict(num_scales=3)),
    'LSQ depthwise': ('LSQQuantizer', dict(num_scales=6, channels=6)),
    'LSQ+ input': ('LSQPlusQuantizer', dict(num_scales=3)),
    'PACT input': ('PACTQuantizer', dict(num_scales=3)),
    'DoReFa weight': ('DoReFaQuantizer', WEIGHT),
    'DoReFa input': ('DoReFaQuantizer', dict(num_scales=3)),
    'MinMax weight': ('MinMaxQuantizer', WEIGHT),
}


@pytest.fixture(autouse=True)
def compiling(monkeypatch):
    """conftest.py switches the compiler off elsewhere. The kernels outside of
    graphs are not compiled here."""
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    for kernel in vars(compiled).values():
        if isinstance(kernel, compiled._Fused):
            monkeypatch.setattr(kernel, '_compiled', kernel.function)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Calls(nn.Module):
    """Calls a quantizer three times, as a head on three levels does."""

    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x):
        return sum(
            weight * self.quantizer(weight * x) for weight in (0.5, 1.0, 2.0)
        )


def case(name):
    kind, arguments = CASES[name]
    quantizer = ready(MODELS.get(kind), **arguments).train()
    with torch.no_grad():  # every scale has a value of its own
        for value in quantizer.parameters():
            value.add_(0.1 * torch.rand(value.shape))
    return Calls(quantizer)


def results(function, module, x):
    """Output and all gradients of two passes."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    outputs = [function(x), function(x)]
    sum((y * y.detach().cos()).sum() for y in outputs).backward()
    grads = [parameter.grad for parameter in module.parameters()]
    return [*outputs, x.grad, *grads]


@pytest.mark.parametrize('name', list(CASES))
def test_one_graph_computes_the_same(name):
    torch.manual_seed(0)
    module, x = case(name), torch.randn(4, 6, 5, 5)
    graph = torch.compile(
        copy.deepcopy(module), backend='aot_eager', fullgraph=True
    )
    got = results(graph, graph, x)
    want = results(module, module, x)
    torch.testing.assert_close(got, want)


def test_images_of_any_size():
    """The compiler sees sizes as symbols, on which LSQ's factor depends."""
    torch.manual_seed(0)
    module = case('LSQ input')
    graph = torch.compile(
        copy.deepcopy(module),
        backend='aot_eager',
        fullgraph=True,
        dynamic=True,
    )
    graphs = torch._dynamo.utils.counters['stats']
    made = None
    for size in (8, 10, 13):
        x = torch.randn(4, 6, size, size + 1)
        torch.testing.assert_close(
            results(graph, graph, x), results(module, module, x)
        )
        made = made or graphs['unique_graphs']
    assert graphs['unique_graphs'] == made


def test_values_on_the_bounds():
    """Gradients there are a choice: those of a graph are those of kernels."""
    module = case('PACT input')
    for weight in (0.5, 1.0, 2.0):
        bounds = [-0.5, 0.0, 0.5, *module.quantizer.alpha.tolist()]
        x = torch.tensor(bounds) / weight
        graph = torch.compile(
            copy.deepcopy(module), backend='aot_eager', fullgraph=True
        )
        torch.testing.assert_close(
            results(graph, graph, x), results(module, module, x)
        )


@pytest.mark.parametrize('reentrant', [True, False])
def test_a_checkpoint_finds_its_slots_again(reentrant):
    """A compiled step traces only the second run, in the backward pass. Saved
    tensors are read once, which is all that a checkpoint allows."""
    torch.manual_seed(0)
    module = case('LSQ input')

    def step(module, maps):
        outputs = [
            checkpoint(module.quantizer, x, use_reentrant=reentrant)
            for x in maps
        ]
        sum((y * y).sum() for y in outputs).backward()

    maps = [torch.rand(5, 4) * k for k in (1, 4, 16)]
    found = []
    for run in (step, torch.compile(step, backend='aot_eager')):
        one = copy.deepcopy(module)
        inputs = [x.clone().requires_grad_() for x in maps]
        for _ in range(2):
            run(one, inputs)
        found.append([one.quantizer.log_scale.grad, *(x.grad for x in inputs)])
    torch.testing.assert_close(*found)


def test_a_moving_average_moves_outside_of_graphs():
    """Once per call, as it does without a compiler."""
    torch.manual_seed(0)
    module = Calls(ready(MODELS.get('MinMaxQuantizer'), num_scales=3).train())
    graph = torch.compile(copy.deepcopy(module), backend='aot_eager')
    x = torch.randn(4, 6, 5, 5)
    torch.testing.assert_close(
        results(graph, graph, x), results(module, module, x)
    )
    torch.testing.assert_close(
        dict(graph._orig_mod.named_buffers()), dict(module.named_buffers())
    )
    assert module.quantizer.high[0] != module.quantizer.high[1]


def test_calibration_observes_outside_of_graphs():
    module = case('LSQ input')
    graph = torch.compile(module, backend='aot_eager')
    x = torch.randn(4, 6, 5, 5)
    graph(x)
    seen = []

    class Observer:
        def update(self, x, slot):
            seen.append(slot)
            return x

    module.quantizer.observer = Observer()
    torch.testing.assert_close(graph(x), 5.25 * x)
    assert seen == [0, 1, 2]
