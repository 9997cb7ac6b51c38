"""Teachers are evaluated on the run's own evaluation images."""

import re
from multiprocessing.pool import ThreadPool

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from mmgor.datasets.shapes import CLASSES
from mmgor.hooks.teacher_metrics import verify_teachers
from mmgor.registry import DATASETS, MODELS
from tests.support.models import retinanet_cfg
from tests.support.training import tiny_scenes, training_config


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    """Ready to train, with its teacher built, before the first iteration."""
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
    """Knows the labels, in another class order and without one class."""

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


def test_perfect_detections_and_only_seen_images_count(runner, monkeypatch):
    line, warned, seen = metrics_told(runner, monkeypatch, 1.0, 1)
    dataset = runner.val_loop.dataloader.dataset
    images = [dataset[i]['data_samples'] for i in range(2)]
    assert seen == [sample.img_id for sample in images]  # one batch
    # COCO averages over classes with labels; class 0 is never found.
    labels = torch.cat([s.gt_instances.labels for s in images]).unique()
    want = float((labels > 0).sum() / len(labels))
    got = re.search(r"'big' before training: coco/bbox_mAP ([\d.]+),", line)
    assert float(got.group(1)) == pytest.approx(want, abs=6e-4)
    assert not warned


def no_box(inputs, samples, rescale):
    for sample in samples:
        sample.pred_instances = InstanceData(
            bboxes=torch.zeros(0, 4),
            labels=torch.zeros(0).long(),
            scores=torch.zeros(0),
        )
    return samples


def box_on_nothing(inputs, samples, rescale):
    for sample in samples:
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
            labels=torch.tensor([0]),
            scores=torch.tensor([0.9]),
        )
    return samples


@pytest.mark.parametrize('metric', ['CocoMetric', 'VOCMetric'])
@pytest.mark.parametrize('predict', [no_box, box_on_nothing])
def test_a_teacher_that_finds_nothing_is_warned_about(
    runner, monkeypatch, predict, metric
):
    if metric == 'VOCMetric':
        # It forks, which may hang in a process that has threads.
        pool = 'mmdet.evaluation.functional.mean_ap.Pool'
        monkeypatch.setattr(pool, ThreadPool)
        evaluator = runner.build_evaluator(dict(type=metric))
        evaluator.dataset_meta = runner.val_loop.evaluator.dataset_meta
        monkeypatch.setattr(runner.val_loop, 'evaluator', evaluator)
    model = runner.model.teachers['big'].model
    monkeypatch.setattr(model, 'predict', predict)
    warned = []
    monkeypatch.setattr(runner.logger, 'warning', warned.append)
    verify_teachers(runner, runner.model, 4)
    assert len(warned) == 1
    assert "'big' detects next to nothing" in warned[0]


def test_the_evaluator_comes_from_the_val_loop_and_does_not_change(
    runner, monkeypatch
):
    loop = runner.val_loop
    evaluator = runner.build_evaluator(
        dict(type='Evaluator', metrics=[runner.cfg.val_evaluator])
    )
    evaluator.dataset_meta = loop.evaluator.dataset_meta
    monkeypatch.setattr(runner, 'cfg', Config())
    monkeypatch.setattr(loop, 'evaluator', evaluator)
    line, _, _ = metrics_told(runner, monkeypatch, 1.0, 2)
    assert 'coco/bbox_mAP ' in line
    metric = evaluator.metrics[0]
    assert (metric.results, metric.img_ids, metric.cat_ids) == ([], None, None)


def test_images_that_the_sampler_repeats_count_once(runner, monkeypatch):
    loop = runner.val_loop
    dataset = loop.dataloader.dataset
    want, _, _ = metrics_told(runner, monkeypatch, 1.0, 4)
    padded = DataLoader(
        dataset, 2, sampler=[0, 1, 2, 3, 0, 1], collate_fn=pseudo_collate
    )
    monkeypatch.setattr(loop, 'dataloader', padded)
    line, _, seen = metrics_told(runner, monkeypatch, 1.0, 6)
    assert len(seen) == 6
    assert line == want


def joined(runner, monkeypatch, classes=CLASSES):
    """Let the val loop read two data sets, each with its own metric."""
    cfg = runner.cfg.val_dataloader.dataset
    parts = [
        dict(cfg, metainfo=dict(classes=names, source=i))
        for i, names in enumerate((CLASSES, classes))
    ]
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=parts))
    assert isinstance(dataset.metainfo, list)
    evaluator = runner.build_evaluator(
        dict(
            type='MultiDatasetsEvaluator',
            metrics=[runner.cfg.val_evaluator] * 2,
            dataset_prefixes=['one', 'two'],
        )
    )
    evaluator.dataset_meta = dataset.metainfo
    loader = DataLoader(dataset, 2, collate_fn=pseudo_collate)
    monkeypatch.setattr(runner.val_loop, 'dataloader', loader)
    monkeypatch.setattr(runner.val_loop, 'evaluator', evaluator)


def test_joined_data_sets(runner, monkeypatch):
    line, _, _ = metrics_told(runner, monkeypatch, 1.0, 4)
    want = re.search(r'coco/bbox_mAP [\d.]+', line).group()
    joined(runner, monkeypatch)
    line, _, _ = metrics_told(runner, monkeypatch, 1.0, 8)
    assert f' one/{want},' in line and f' two/{want},' in line
    with pytest.raises(
        RuntimeError, match=r'all 8 .* Set num_verify_images=8'
    ):
        verify_teachers(runner, runner.model, 7)


def test_joined_data_sets_of_other_classes(runner, monkeypatch):
    joined(runner, monkeypatch, classes=CLASSES[1:])
    with pytest.raises(ValueError, match='the same classes in all data sets'):
        verify_teachers(runner, runner.model, 8)


def test_a_teacher_of_features_may_know_other_classes(runner, monkeypatch):
    model = runner.model
    told = []
    monkeypatch.setattr(runner.logger, 'info', told.append)
    monkeypatch.setattr(model.teachers['big'], 'classes', tuple('abcde'))
    with pytest.raises(ValueError, match="'big' knows none of the classes"):
        verify_teachers(runner, model, 1)
    monkeypatch.delitem(model.kd_heads._modules, 'cls')
    verify_teachers(runner, model, 1)
    assert told == [
        "Teacher 'big' is not verified: no KD head reads its classes."
    ]


def test_no_evaluation_data(runner, monkeypatch):
    monkeypatch.setattr(runner, '_val_loop', None)
    with pytest.raises(
        RuntimeError, match='num_verify_images needs evaluation'
    ):
        verify_teachers(runner, runner.model, 4)


def test_no_evaluator(runner, monkeypatch):
    monkeypatch.delattr(runner.val_loop, 'evaluator')
    with pytest.raises(RuntimeError, match='evaluation images; expected'):
        verify_teachers(runner, runner.model, 4)
