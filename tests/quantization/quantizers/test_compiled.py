import pytest
import torch

from mmgor.quantization.quantizers import compiled, functional


@pytest.fixture
def eager_kernels(monkeypatch):
    """What runs where no compiler is found."""
    for name in ('_forward', '_backward'):
        fused = compiled._Fused(getattr(compiled, name).function)
        fused._compiled = fused.function
        monkeypatch.setattr(compiled, name, fused)


def run(function, x, scale, **kwargs):
    x = x.clone().requires_grad_()
    scale = scale.clone().requires_grad_()
    y = function(
        x,
        scale,
        torch.zeros_like(scale),
        torch.tensor(-8),
        torch.tensor(7),
        **kwargs,
    )
    (y * torch.linspace(0, 1, y.numel()).view(y.shape)).sum().backward()
    return y.detach(), x.grad, scale.grad


@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_per_tensor_matches_composition(eager_kernels, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5).to(memory_format=layout)
    got = run(compiled.fake_quantize, x, torch.tensor(0.3))
    want = run(functional.fake_quantize, x, torch.tensor(0.3))
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)


def test_per_channel_matches_composition(eager_kernels):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 2, 2)
    scale = torch.rand(3) + 0.1
    shape = [-1, 1, 1, 1]
    got = run(compiled.fake_quantize, x, scale, per_channel=True)
    want = run(
        lambda x, s, o, low, high: functional.fake_quantize(
            x, s.view(shape), o.view(shape), low, high
        ),
        x,
        scale,
    )
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)


def test_retain_graph_is_allowed(eager_kernels):
    x = torch.randn(10, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    y = compiled.fake_quantize(
        x, scale, torch.tensor(0.0), torch.tensor(0), torch.tensor(15)
    ).sum()
    y.backward(retain_graph=True)
    first = x.grad.clone()
    y.backward()
    torch.testing.assert_close(x.grad, 2 * first)


def test_only_the_input_is_kept_for_backward(eager_kernels):
    x = torch.randn(1000, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        compiled.fake_quantize(
            x,
            torch.tensor(0.1),
            torch.tensor(0.0),
            torch.tensor(0),
            torch.tensor(15),
        )
    assert [n for n in kept if n > 1] == [1000]


def test_half_precision_input_keeps_its_dtype(eager_kernels):
    x = torch.randn(10, dtype=torch.bfloat16, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    y = compiled.fake_quantize(
        x, scale, torch.tensor(0.0), torch.tensor(-8), torch.tensor(7)
    )
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert scale.grad.dtype == torch.float32


def test_falls_back_when_nothing_compiles(monkeypatch, caplog):

    def broken(function, **_):

        def raises(*_):
            raise RuntimeError('no compiler')

        return raises

    monkeypatch.setattr(torch, 'compile', broken)
    fused = compiled._Fused(functional.fake_quantize)
    args = (
        torch.tensor([0.26]),
        torch.tensor(0.1),
        torch.tensor(0.0),
        torch.tensor(0),
        torch.tensor(15),
    )
    assert fused(*args).item() == pytest.approx(0.3)
    assert fused._compiled is functional.fake_quantize


def test_a_full_device_is_not_taken_for_a_missing_compiler(monkeypatch):

    def full(*_):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: full)
    fused = compiled._Fused(functional.fake_quantize)
    one = torch.tensor(1.0)
    with pytest.raises(torch.OutOfMemoryError):
        fused(one, one, one, one, one)
    assert fused._compiled is full


def test_a_wrong_call_is_not_taken_for_a_missing_compiler(monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda f, **_: lambda *a: f(*a))
    fused = compiled._Fused(functional.fake_quantize)
    one = torch.tensor(1.0)
    with pytest.raises(RuntimeError, match='must match'):
        fused(torch.zeros(3), torch.ones(2), torch.zeros(2), one, one)
    assert fused._compiled is not functional.fake_quantize


@pytest.mark.parametrize(
    'function', [functional.fake_quantize, functional.fake_quantize_backward]
)
def test_compiled_equals_eager(function, monkeypatch):
    """The real compiler; conftest switches it off elsewhere."""
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters['stats']
    before = counters['unique_graphs']
    x = torch.linspace(-2, 2, 1001)
    args = (torch.tensor(0.13), torch.tensor(0.0), torch.tensor(-8))
    args = (x, *args, torch.tensor(7))
    if function is functional.fake_quantize_backward:
        args = (torch.linspace(0, 1, 1001), *args)
    got = compiled._Fused(function)(*args)
    torch.testing.assert_close(got, function(*args))
    assert counters['unique_graphs'] == before + 1
