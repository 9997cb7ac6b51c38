"""What the tools do in their process, with the model on a CUDA device."""

from unittest import mock

import pytest
import torch
from _common import build_runner
from mmengine.config import Config
from mmengine.hooks import Hook

import mmgor.hooks
from mmgor.conversion import trial
from mmgor.quantization.quantizers import observer
from mmgor.training_report.detections import look
from tests.support.device_steps import by_file
from tests.support.models import quantized_cfg
from tests.support.training import (
    scene_teacher,
    tiny_scenes,
    training_config,
)
from tests.support.virtual_cuda import virtual_cuda

CUSTOM = [
    dict(
        type='QuantCalibrationHook',
        num_batches=1,
        correct_norms=True,
        compensate_weights=True,
    ),
    dict(type='GoRWeightHook', num_verify_images=4),
    dict(type='NonFiniteLossHook'),
    dict(type='ChannelsLastHook'),
    dict(type='EMAHook'),
]


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    """Calibration tries fewer scales, by the same operations."""
    monkeypatch.setattr(observer, 'NUM_CANDIDATES', 3)


class Waits(Hook):
    """Keeps, for each iteration, which files of mmgor made the host wait, and
    how often mmengine's log did."""

    priority = 'LOWEST'

    def __init__(self, device):
        self.device = device
        self.seen = []

    def after_train_iter(self, *_, **__):
        logged = by_file(self.device.stock_waits).get('message_hub.py', 0)
        self.seen.append((by_file(self.device.waits), logged))
        self.device.waits.clear()
        self.device.stock_waits.clear()


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('device')
    cfg = training_config(
        tiny_scenes(folder / 'scenes'),
        folder / 'work',
        scene_teacher(folder),
    )
    cfg.train_cfg.val_interval = 1
    cfg.train_dataloader.batch_size = 2
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', interval=1)
    cfg.custom_hooks = CUSTOM
    return cfg


def known_hooks():
    """Names of mmgor's hooks."""
    return [
        name
        for name, kind in vars(mmgor.hooks).items()
        if isinstance(kind, type) and issubclass(kind, Hook)
    ]


def test_a_training_and_a_test(config, monkeypatch):
    """The host waits twice in an iteration: to know whether the optimizer
    steps, and for what is logged. Testing waits in stock code only."""
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cuda')
    with virtual_cuda() as device:
        runner = build_runner(config)
        waits = Waits(device)
        runner.register_hook(waits)
        runner.register_hook(mmgor.hooks.ExactResumeHook())
        tried = {type(hook).__name__ for hook in runner.hooks}
        # ReportHook has a test of its own below.
        assert {*known_hooks()} <= {*tried, 'ReportHook'}
        runner.train()
        assert runner.model.backbone.conv1.weight.is_cuda
        twice = {'hooks/nonfinite_loss_hook.py': 2}
        assert waits.seen[1:] == [(twice, 0)] * 3
        device.waits.clear()
        metrics = runner.test()
        assert device.waits == {}
        assert 'coco/bbox_mAP' in metrics


def test_conversion_and_report(config, monkeypatch):
    """A converted config's trial step, and what a report looks at."""
    monkeypatch.setattr(trial, 'get_device', lambda: 'cuda')
    with virtual_cuda():
        model = trial.build(Config(dict(model=quantized_cfg())))
        batch = trial.noise_batch(3, 64, with_masks=False)
        assert trial.try_step(model, batch).loss > 0
        with mock.patch.object(torch.cuda, 'is_available', lambda: True):
            sight = look(config, model, 1, print, with_teachers=False)
        assert len(sight.images) == 1 and model.backbone.conv1.weight.is_cuda
