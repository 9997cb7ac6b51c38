"""Bfloat16OptimWrapper: a student trains under autocast on the CPU."""

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


@pytest.mark.parametrize(('kernel', 'stride', 'width'), [(3, 2, 1), (5, 3, 2)])
def test_maps_narrower_than_the_stride(kernel, stride, width):
    """The gradient of a kernel's columns that read only padding is zero."""
    layer = nn.Conv2d(16, 16, kernel, stride, kernel // 2)
    model = nn.Sequential(nn.Conv2d(16, 16, 1), layer, nn.Conv2d(16, 16, 1))
    wrapper = Bfloat16OptimWrapper(torch.optim.SGD(model.parameters(), 0.0))
    outside = set(range(kernel)) - {
        kernel // 2 + column for column in range(width)
    }
    for _ in range(20):
        dirt = [torch.full((2**size,), torch.nan) for size in range(4, 16)]
        del dirt
        with wrapper.optim_context(model):
            output = model(torch.rand(2, 16, 4, width))
            assert torch.is_autocast_enabled('cpu')
        assert output.dtype == torch.bfloat16
        layer.zero_grad()
        output.float().sum().backward()
        assert not layer.weight.grad[..., list(outside)].any()
    assert model(torch.rand(2, 16, 4, width)).dtype == torch.float32


def test_autocast_is_on_again_after_an_error():
    model = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1))
    wrapper = Bfloat16OptimWrapper(torch.optim.SGD(model.parameters(), 0.0))
    with wrapper.optim_context(model):
        with pytest.raises(RuntimeError, match='channels'):
            model(torch.rand(2, 8, 1, 1))
        assert torch.is_autocast_enabled('cpu')
