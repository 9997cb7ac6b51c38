"""CalibrationLoop: quantizers get ranges, and nothing else changes."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmgor.quantization import uncalibrated_layers
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.training import tiny_scenes, training_config

WEIGHT = 'neck.fpn_convs.0.conv.weight'


@pytest.fixture
def config(tmp_path):
    """A config that calibrates a float detector's weights."""
    folder = tiny_scenes(tmp_path / 'scenes')
    config = training_config(folder, tmp_path, dict())
    config.model = quantized_cfg()
    config.train_cfg = dict(type='CalibrationLoop', max_epochs=0)
    config.custom_hooks = [dict(type='QuantCalibrationHook', num_batches=1)]
    torch.manual_seed(0)
    weights = MODELS.build(retinanet_cfg()).state_dict()
    config.load_from = str(tmp_path / 'float.pth')
    torch.save(dict(state_dict=weights), config.load_from)
    return config


def saved(path):
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize('evaluates', [True, False])
def test_it_calibrates(config, evaluates):
    if not evaluates:
        for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
            config.pop(key)
    runner = Runner.from_cfg(config)
    model = runner.train()
    assert not uncalibrated_layers(model)
    start = saved(config.load_from)
    got = saved(Path(config.work_dir) / 'epoch_0.pth')
    assert all(torch.equal(got[key], start[key]) for key in start)
    assert (got[f'{WEIGHT}_quantizer.log_scale'] != 0).all()
    metrics = runner.message_hub.log_scalars
    assert any(key.endswith('mAP') for key in metrics) is evaluates


def test_an_average_of_no_steps_is_refused(config):
    config.custom_hooks.append(dict(type='EMAHook'))
    with pytest.raises(RuntimeError, match='EMAHook'):
        Runner.from_cfg(config).train()
