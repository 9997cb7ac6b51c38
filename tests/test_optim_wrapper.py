"""Bfloat16OptimWrapper: a student trains under autocast on the CPU."""

import torch
from mmengine.runner import Runner

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
