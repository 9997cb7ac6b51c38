"""A teacher's worth on the run's own evaluation pictures."""

import re

import pytest
import torch
from conftest import retinanet_cfg
from helpers import tiny_scenes, training_config
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmgor.datasets.shapes import CLASSES
from mmgor.hooks.verify_teacher import verify_teachers
from mmgor.registry import MODELS


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    """Ready to train, its teacher built, not one iteration done."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp('verify')
    scenes = tiny_scenes(folder / 'scenes')
    cfg = retinanet_cfg(channels=12, fpn=24, classes=5)
    path = folder / 'teacher.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    teacher = dict(
        config=cfg, checkpoint=str(path), classes=[*CLASSES[1:], 'other']
    )
    config = training_config(scenes, folder / 'run', teacher)
    config.val_dataloader.batch_size = 2
    runner = Runner.from_cfg(config)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    runner.model.build_teachers()
    return runner


class Oracle:
    """Knows the labels, in its own class order and one class short."""

    def __init__(self, seen, found):
        self.seen, self.found = seen, found

    def __call__(self, inputs, samples, rescale):
        assert rescale
        for sample in samples:
            self.seen.append(sample.img_id)
            truth = sample.gt_instances
            known = truth.labels > 0
            factor = truth.bboxes.new_tensor(sample.scale_factor).repeat(2)
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes[known] / factor,
                labels=truth.labels[known] - 1,
                scores=torch.ones(int(known.sum())) * self.found,
            )
        return samples


def metrics_told(runner, monkeypatch, found, images):
    told, warned, seen = [], [], []
    model = runner.model.teachers['big'].model
    monkeypatch.setattr(model, 'predict', Oracle(seen, found))
    monkeypatch.setattr(runner.logger, 'info', told.append)
    monkeypatch.setattr(runner.logger, 'warning', warned.append)
    verify_teachers(runner, runner.model, images)
    return told[-1], warned, seen


def test_what_it_finds_is_perfect_and_only_seen_pictures_count(
    runner, monkeypatch
):
    line, warned, seen = metrics_told(runner, monkeypatch, 1.0, 1)
    dataset = runner.val_loop.dataloader.dataset
    pictures = [dataset[i]['data_samples'] for i in range(2)]
    assert seen == [sample.img_id for sample in pictures]  # a batch
    # COCO averages over classes with labels; class 0 is never found.
    labels = torch.cat([s.gt_instances.labels for s in pictures]).unique()
    want = float((labels > 0).sum() / len(labels))
    got = re.search(r"'big' before training: coco/bbox_mAP ([\d.]+),", line)
    assert float(got.group(1)) == pytest.approx(want, abs=6e-4)
    assert not warned


def test_a_teacher_that_finds_nothing_is_told(runner, monkeypatch):
    model = runner.model.teachers['big'].model
    monkeypatch.setattr(
        model,
        'predict',
        lambda inputs, samples, rescale: [
            s.set_field(
                InstanceData(
                    bboxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
                    labels=torch.tensor([0]),
                    scores=torch.tensor([0.9]),
                ),
                'pred_instances',
            )
            or s
            for s in samples
        ],
    )
    warned = []
    monkeypatch.setattr(runner.logger, 'warning', warned.append)
    verify_teachers(runner, runner.model, 4)
    assert 'detects next to nothing' in warned[-1]


def test_no_evaluation_data(runner, monkeypatch):
    monkeypatch.setattr(runner, '_val_loop', None)
    with pytest.raises(RuntimeError, match='verify_teacher needs evaluation'):
        verify_teachers(runner, runner.model, 4)
