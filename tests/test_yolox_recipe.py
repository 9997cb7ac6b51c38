"""YOLOX's stock recipe with a quantized student and a float teacher.

It has mosaic, MixUp, multi-scale batches and an exponential moving average.
"""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmgor.datasets.shapes import CLASSES
from mmgor.hooks.student import unwrapped_model
from mmgor.quantization import quantized_layers
from tests.support.students import quantized, tiny
from tests.support.training import tiny_scenes, training_config

# Every test reads the same run.
pytestmark = pytest.mark.slow
MOMENTUM, GAMMA = 0.1, 2


class Record(Hook):
    """Keep the inputs of student and teacher and the weights of each step."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.student: list[torch.Tensor] = []
        self.teacher: list[torch.Tensor] = []
        self.live: list[dict[str, torch.Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        model = unwrapped_model(runner)
        for side, seen in (
            (model, self.student),
            (model.teachers['big'].model, self.teacher),
        ):
            side.backbone.register_forward_pre_hook(
                lambda _, args, seen=seen: seen.append(args[0].clone())
            )

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        state = unwrapped_model(runner).state_dict()
        self.live.append({k: v.clone() for k, v in state.items()})


def shrunk(transform: dict) -> dict:
    """A stock transform for images of 64 instead of 640 px."""
    sizes = [k for k in ('img_scale', 'scale', 'border') if k in transform]
    return transform | {k: tuple(x // 10 for x in transform[k]) for k in sizes}


def recipe(root, work_dir, teacher_spec):
    """Four iterations of the stock recipe at 64 to 128 px."""
    stock = get_config('mmdet::yolox/yolox_s_8xb8-300e_coco.py')
    cfg = training_config(root, work_dir, teacher_spec, epochs=2)
    model = quantized(tiny('yolox/yolox_nano_8xb8-300e_coco'))
    model.bbox_head.num_classes = len(CLASSES)
    model.data_preprocessor.batch_augments = [
        dict(
            type='BatchSyncRandomResize',
            random_size_range=(64, 128),
            size_divisor=32,
            interval=1,
        )
    ]
    model.update(
        detector=model.type,
        type='GoRDetector',
        teachers=dict(big=teacher_spec),
        kd_heads=dict(
            neck=dict(
                type='FeatureKDHead',
                student_channels=16,
                teacher_channels=24,
                strides=(8, 16, 32),
            )
        ),
        gor_weighting=dict(type='GoRWeighting'),
    )
    cfg.model = model
    mixed = stock.train_dataloader.dataset
    scenes = cfg.train_dataloader.dataset
    scenes.pipeline = mixed.dataset.pipeline
    mixed.update(dataset=scenes, pipeline=[shrunk(t) for t in mixed.pipeline])
    cfg.train_dataloader.dataset = mixed
    cfg.default_hooks.checkpoint.interval = 99
    cfg.custom_hooks += [
        dict(type='YOLOXModeSwitchHook', num_last_epochs=1, priority=48),
        dict(type='SyncNormHook', priority=48),
        dict(
            type='EMAHook',
            ema_type='ExpMomentumEMA',
            momentum=MOMENTUM,
            gamma=GAMMA,
            update_buffers=True,
            priority=49,
        ),
    ]
    return cfg


@pytest.fixture(scope='module')
def run(tmp_path_factory, teacher_spec):
    root = tiny_scenes(tmp_path_factory.mktemp('scenes'))
    work_dir = tmp_path_factory.mktemp('yolox')
    runner = Runner.from_cfg(recipe(root, work_dir, teacher_spec))
    record = Record()
    runner.register_hook(record)
    runner.train()
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    return SimpleNamespace(runner=runner, record=record, ema=ema.ema_model)


def test_multi_scale_batches_reach_the_teacher(run):
    """The teacher sees the student's images at the same size, normalised its
    own way (the student's inputs are pixels; mosaics have no padding)."""
    student, teacher = run.record.student, run.record.teacher
    assert len(teacher) == 4
    student = student[:4]  # the rest is validation, without a teacher
    assert len({x.shape for x in student}) > 1
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    for pixels, inputs in zip(student, teacher):
        want = (pixels.flip(1) - mean) / std
        torch.testing.assert_close(inputs, want, rtol=1e-4, atol=1e-4)


def test_averages_scales(run):
    """The formula of ExpMomentumEMA, by hand, for every learned step size."""
    live = run.record.live
    averaged = run.ema.module.state_dict()
    names = [k for k in live[0] if k.endswith('log_scale')]
    names.remove('backbone.stem.conv.conv.input_quantizer.log_scale')
    assert len(names) > 100  # without that of the image, which is fixed
    for name in names:
        want = live[0][name]
        for step, state in enumerate(live[1:], 1):
            share = (1 - MOMENTUM) * math.exp(-(1 + step) / GAMMA) + MOMENTUM
            want = (1 - share) * want + share * state[name]
        torch.testing.assert_close(averaged[name], want, msg=name)
        assert (averaged[name] != live[-1][name]).any(), name


def test_copies_ranges(run):
    averaged, live = run.ema.module.state_dict(), run.record.live[-1]
    names = [k for k in live if k.endswith(('qmin', 'qmax'))]
    assert len(names) == 4 * len(quantized_layers(run.ema.module))
    for name in names:
        assert torch.equal(averaged[name], live[name]), name
    assert {int(live[k]) for k in names if k.endswith('qmax')} <= {
        *(7, 15),
        *(127, 255),
    }


def test_the_average_predicts(run):
    """The averaged copy predicts, as an export would use it."""
    model = run.ema.module.eval()
    batch = next(iter(run.runner.val_dataloader))
    with torch.no_grad():
        results = model.test_step(batch)
    assert len(results) == 4
    scores = torch.cat([r.pred_instances.scores for r in results])
    assert torch.isfinite(scores).all()
