import pytest
import torch

from mmgor.quantization.quantizers import compiled, functional


@pytest.fixture
def eager_kernels(monkeypatch):
    """Run the plain functions, as without a compiler."""
    for name in ('_forward', '_backward'):
        fused = compiled._Fused(getattr(compiled, name).function)
        fused._compiled = fused.function
        monkeypatch.setattr(compiled, name, fused)


BOUNDS = torch.tensor(-8), torch.tensor(7)
FACTOR = 0.25


def weighted(y):
    return (y * torch.linspace(0, 1, y.numel()).view(y.shape)).sum()


def got(x, scale, offset, axis):
    """Output and gradients of x, the step size and the offset."""
    x, offset, log_scale = (
        t.clone().requires_grad_() for t in (x, offset, scale.log())
    )
    y = compiled.fake_quantize(
        x,
        scale,
        offset,
        *BOUNDS,
        axis=axis,
        log_scale=log_scale,
        factor=FACTOR,
    )
    weighted(y).backward()
    return y.detach(), x.grad, log_scale.grad, offset.grad


def want(x, scale, offset, axis):
    """The same by autograd, from the plain function."""
    shape = [1] * x.dim()
    if axis is not None:
        shape[axis] = -1
    x, scale, offset = (t.clone().requires_grad_() for t in (x, scale, offset))
    y = functional.fake_quantize(
        x, scale.view(shape), offset.view(shape), *BOUNDS
    )
    weighted(y).backward()
    return y.detach(), x.grad, FACTOR * scale.grad, FACTOR * offset.grad


@pytest.mark.parametrize('axis', [None, 0, 1])
@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
def test_it_matches_the_plain_function(eager_kernels, layout, axis):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5).to(memory_format=layout)
    count = 1 if axis is None else x.shape[axis]
    arguments = x, torch.rand(count) / 3 + 0.1, torch.randn(count), axis
    y, *gradients = got(*arguments)
    for a, b in zip((y, *gradients), want(*arguments)):
        torch.testing.assert_close(a, b)
    # A channels-last network would else go on in the other layout.
    assert axis == 1 or y.is_contiguous(memory_format=layout)
    assert axis == 1 or gradients[0].is_contiguous(memory_format=layout)


def test_a_step_size_with_a_gradient_of_its_own(eager_kernels):
    """A quantizer that computes its step size gets dL/dscale, plain."""
    torch.manual_seed(0)
    x, offset = torch.randn(3, 20), torch.randn(3)
    scale = (torch.rand(3) / 3 + 0.1).requires_grad_()
    y = compiled.fake_quantize(x, scale, offset, *BOUNDS, axis=0)
    weighted(y).backward()
    _, _, grad, _ = want(x, scale.detach(), offset, 0)
    torch.testing.assert_close(FACTOR * scale.grad, grad)


@pytest.mark.parametrize('axis', [None, 0, 1])
def test_the_output_may_change_in_place(eager_kernels, axis):
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    scale = torch.full((1 if axis is None else x.shape[axis],), 0.3)
    for y in (
        compiled.fake_quantize(x, scale, None, *BOUNDS, axis=axis),
        compiled.pact(x, torch.tensor(9.0), *BOUNDS),
    ):
        y *= 0.5
        (grad,) = torch.autograd.grad(y.sum(), x)
        inside = (x.detach() / 0.3 <= 7) & (x.detach() / 0.3 >= -8)
        known = grad[inside]
        torch.testing.assert_close(known, torch.full_like(known, 0.5))


def test_second_derivatives_are_refused(eager_kernels):
    """They would leave out what goes through the step size."""
    x = torch.randn(8, requires_grad=True)
    y = compiled.fake_quantize(x, torch.tensor(0.3), None, *BOUNDS)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_a_channel_of_zeros_in_half_precision(eager_kernels):
    """Its step size is 0 in half, where 1e-8 is 0, too."""
    x = torch.zeros(2, 5, dtype=torch.half, requires_grad=True)
    scale = torch.zeros(2, dtype=torch.half)
    y = compiled.fake_quantize(x, scale, None, *BOUNDS, axis=0)
    assert y.dtype == torch.half and (y == 0).all()


def test_without_gradients_it_matches_too():
    x = torch.randn(2, 3, 4, 5)
    arguments = x, torch.rand(3) / 3 + 0.1, torch.randn(3)
    torch.testing.assert_close(
        compiled.fake_quantize(*arguments, *BOUNDS, axis=1),
        want(*arguments, axis=1)[0],
    )


def test_retain_graph_is_allowed(eager_kernels):
    x = torch.randn(10, requires_grad=True)
    y = compiled.fake_quantize(x, torch.tensor(0.1), None, *BOUNDS).sum()
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
        compiled.fake_quantize(x, torch.tensor(0.1), None, *BOUNDS)
    assert [n for n in kept if n > 1] == [1000]


def test_half_precision_input_keeps_its_dtype(eager_kernels):
    x = torch.randn(10, dtype=torch.bfloat16, requires_grad=True)
    log_scale = torch.tensor(0.1).log().requires_grad_()
    y = compiled.fake_quantize(
        x, torch.tensor(0.1), None, *BOUNDS, log_scale=log_scale
    )
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert log_scale.grad.dtype == torch.float32


def five_numbers():
    """Arguments of ``functional.fake_quantize``: 0.26 in steps of 0.1."""
    return tuple(map(torch.tensor, (0.26, 0.1, 0.0, 0, 15)))


def fused_that_raises(monkeypatch, error):
    """A kernel whose compiled form raises ``error``."""

    def raises(*_):
        raise error

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: raises)
    return compiled._Fused(functional.fake_quantize), raises


def compiler_failed(cause):
    """The error by which dynamo reports a failure inside a backend."""
    return torch._dynamo.exc.BackendCompilerFailed('inductor', cause, None)


def test_falls_back_when_nothing_compiles(monkeypatch):
    lines = []
    monkeypatch.setattr(
        compiled, 'print_log', lambda text, **_: lines.append(text)
    )
    error = compiler_failed(RuntimeError('No working C++ compiler found'))
    fused, _ = fused_that_raises(monkeypatch, error)
    for _ in range(2):
        assert fused(*five_numbers()).item() == pytest.approx(0.3)
    assert fused._compiled is functional.fake_quantize
    (line,) = lines
    assert 'compiled (RuntimeError: No working C++ compiler found)' in line
    assert 'install a C++ compiler (CPU) or triton (GPU)' in line


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory'),
        compiler_failed(torch.OutOfMemoryError('CUDA out of memory')),
        compiler_failed(RuntimeError('Triton Error [CUDA]: out of memory')),
        MemoryError(),
        compiler_failed(MemoryError()),
        RuntimeError('CUDA error: an illegal memory access was encountered'),
    ],
    ids=repr,
)
def test_a_full_device_is_not_taken_for_a_missing_compiler(monkeypatch, error):
    fused, raises = fused_that_raises(monkeypatch, error)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            fused(*five_numbers())
        assert caught.value is error
    assert fused._compiled is raises


@pytest.mark.parametrize('wrap', [False, True])
def test_a_wrong_call_is_not_taken_for_a_missing_compiler(monkeypatch, wrap):
    """Dynamo wraps an error that occurs while it traces."""

    def call(*args):
        try:
            return functional.fake_quantize(*args)
        except RuntimeError as error:
            if wrap:
                text = f'Dynamo failed to run FX node: {error}'
                raise torch._dynamo.exc.TorchRuntimeError(text) from None
            raise

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: call)
    fused = compiled._Fused(functional.fake_quantize)
    one = torch.tensor(1.0)
    with pytest.raises(RuntimeError, match=r'^The size of tensor a'):
        fused(torch.zeros(3), torch.ones(2), torch.zeros(2), one, one)
    assert fused._compiled is call


def test_the_limit_on_variants_is_that_of_the_kernels_alone():
    """mmengine's loss history, in a compiled step, makes a variant a step: it
    must end at the user's limit."""
    with torch._dynamo.config.patch(recompile_limit=8):
        compiled._compile(functional.fake_quantize)
        assert torch._dynamo.config.recompile_limit == 8


@pytest.mark.parametrize('limit, want', [(8, 64), (100, 100)])
def test_an_older_torch_has_one_limit(monkeypatch, limit, want):
    monkeypatch.setattr(torch, 'compile', lambda function, dynamic: function)
    with torch._dynamo.config.patch(recompile_limit=limit):
        compiled._compile(functional.fake_quantize)
        assert torch._dynamo.config.recompile_limit == want


def test_without_a_compiler_the_plain_function_runs(monkeypatch, tmp_path):
    """Here the compiler itself fails; nothing is mocked."""
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    torch._dynamo.reset()
    with torch._inductor.config.patch({'cpp.cxx': ('/no/compiler',)}):
        fused = compiled._Fused(functional.fake_quantize)
        assert fused(*five_numbers()).item() == pytest.approx(0.3)
    assert fused._compiled is functional.fake_quantize


X, GRAD = torch.linspace(-2, 2, 1001), torch.linspace(0, 1, 1001)
ROWS = X[:1000].view(4, 250)
STEP = torch.tensor(0.13), torch.tensor(0.0), *BOUNDS
COMPILED = {
    'fake_quantize': (X, *STEP),
    'fake_quantize_backward': (GRAD, X, *STEP),
    'pact': (X, torch.tensor(0.9), *BOUNDS),
    'pact_backward': (GRAD, X, torch.tensor(0.9), BOUNDS[0]),
    'dorefa_weight': (ROWS, BOUNDS[1], True),
    'dorefa_weight_backward': (GRAD[:1000].view(4, 250), ROWS),
}


@pytest.mark.parametrize('name', list(COMPILED))
@pytest.mark.slow
def test_compiled_equals_eager(name, monkeypatch):
    """With the real compiler, which conftest.py switches off elsewhere."""
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters['stats']
    before = counters['unique_graphs']
    function, args = getattr(functional, name), COMPILED[name]
    got = compiled._Fused(function)(*args)
    torch.testing.assert_close(got, function(*args))
    assert counters['unique_graphs'] == before + 1


@pytest.mark.parametrize(
    'learned', [(True, True), (True, False), (False, True)]
)
@pytest.mark.parametrize('channels', [1, 3])
def test_a_slot_gets_its_gradient(eager_kernels, channels, learned):
    """That of a call with its values alone; the other slots get zeros."""
    torch.manual_seed(0)
    x, axis = torch.randn(2, 3, 4, 5), 1 if channels > 1 else None
    scales = torch.rand(2 * channels) + 0.1
    offsets = torch.randn(2 * channels) / 10
    alone = got(x, scales[channels:], offsets[channels:], axis)
    log_scale = scales.log().requires_grad_(learned[0])
    offset = offsets.clone().requires_grad_(learned[1])
    y = compiled.fake_quantize(
        x,
        scales[channels:],
        offset,
        *BOUNDS,
        axis=axis,
        log_scale=log_scale,
        factor=FACTOR,
        slot=1,
    )
    weighted(y).backward()
    assert torch.equal(y, alone[0])
    for parameter, gradient in zip((log_scale, offset), alone[2:]):
        if parameter.requires_grad:
            wanted = torch.cat([torch.zeros(channels), gradient])
            assert torch.equal(parameter.grad, wanted)
        else:
            assert parameter.grad is None
