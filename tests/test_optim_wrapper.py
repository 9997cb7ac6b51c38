"""Bfloat16OptimWrapper: a student trains under autocast on the CPU."""

import copy
import pickle

import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from mmgor.optim_wrapper import Bfloat16OptimWrapper
from tests.support.training import (
    scene_teacher,
    tiny_scenes,
    training_config,
)


def test_forward_passes_run_in_bfloat16(tmp_path):
    """Those of training; weights and evaluation stay in float32."""
    folder = tiny_scenes(tmp_path / 'scenes')
    teacher = scene_teacher(tmp_path)
    config = training_config(folder, tmp_path / 'run', teacher)
    config.optim_wrapper.type = 'Bfloat16OptimWrapper'
    runner = Runner.from_cfg(config)
    seen = []
    runner.model.backbone.register_forward_hook(
        lambda module, _, maps: seen.append((module.training, maps[0].dtype))
    )
    runner.train()
    assert (True, torch.bfloat16) in seen
    assert {kind for training, kind in seen if not training} == {torch.float32}
    state = runner.model.state_dict().values()
    assert all(value.isfinite().all() for value in state)
    kinds = {value.dtype for value in state if value.is_floating_point()}
    assert kinds == {torch.float32}


CONV, BACK = nn.Conv2d, nn.ConvTranspose2d


def outside(kind, kernel, stride, padding, width):
    """Columns of a kernel that read, or write, only padding."""
    if kind is BACK:
        width = (width - 1) * stride - 2 * padding + kernel
    steps = (width + 2 * padding - kernel) // stride + 1
    read = {
        column
        for column in range(kernel)
        for step in range(steps)
        if 0 <= step * stride + column - padding < width
    }
    return sorted({*range(kernel)} - read)


def step_on(model, layer, maps, run):
    """The gradient of the layer's weight, after memory was made dirty."""
    dirt = [torch.full((2**size,), torch.nan) for size in range(4, 16)]
    del dirt
    layer.zero_grad()
    run(maps).float().sum().backward()
    return layer.weight.grad


@pytest.mark.parametrize(
    'kind, kernel, stride, padding, width',
    [(CONV, 3, 2, 1, 1), (CONV, 5, 3, 2, 2), (BACK, 3, 2, 1, 1)],
)
@pytest.mark.parametrize('compiled', [False, True])
def test_maps_narrower_than_the_stride(
    kind, kernel, stride, padding, width, compiled, monkeypatch
):
    """The gradient of a kernel's columns that read only padding is zero."""
    layer = kind(16, 16, kernel, stride, padding)
    model = nn.Sequential(nn.Conv2d(16, 16, 1), layer, nn.Conv2d(16, 16, 1))
    wrapper = Bfloat16OptimWrapper(torch.optim.SGD(model.parameters(), 0.0))

    def run(maps):
        with wrapper.optim_context(model):
            output = model(maps)
            assert torch.is_autocast_enabled('cpu')
        return output

    if compiled:
        monkeypatch.delenv('TORCHDYNAMO_DISABLE')
        torch._dynamo.reset()
        run = torch.compile(run, backend='aot_eager')
    columns = outside(kind, kernel, stride, padding, width)
    assert columns
    for side in (8, width, 8, *[width] * 10):
        maps = torch.rand(2, 16, 4, side)
        assert run(maps).dtype == torch.bfloat16
        grad = step_on(model, layer, maps, run)
        assert grad.isfinite().all()
        assert side == 8 or not grad[..., columns].any()
    torch._dynamo.reset()
    assert model(torch.rand(2, 16, 4, width)).dtype == torch.float32


def test_copies_of_a_model_run_their_own_layers():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1))
    wrapper = Bfloat16OptimWrapper(torch.optim.SGD(model.parameters(), 0.0))
    maps = torch.rand(1, 4, 1, 1)
    with wrapper.optim_context(model):
        model(maps)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        nn.init.zeros_(other[0].weight)
        nn.init.zeros_(other[0].bias)
        assert not other(maps).any() and model(maps).any()
