"""A folder of one's own images takes the place of a config's data."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.hub import get_config

from mmgor.conversion.data import class_settings
from tests.support.conversion import refuse, run, whole, write_float
from tests.support.experiments import write_data
from tests.support.students import R18


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'student.py'


def test_a_folder_of_images(tmp_path, out):
    folder = write_data(tmp_path / 'cells')
    cfg, _ = run(write_float(tmp_path), out, data=folder, epochs=3)
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert cfg.model.bbox_head.num_classes == len(classes)
    for loader, file in (
        ('train', 'train'),
        ('val', 'eval'),
        ('test', 'eval'),
    ):
        dataset = cfg[f'{loader}_dataloader'].dataset
        assert dataset.data_root == str(folder)
        assert dataset.ann_file == f'{file}.json'
        assert dataset.pipeline == [dict(type='PackDetInputs')]
    assert cfg.test_evaluator.ann_file == str(folder / 'eval.json')
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.param_scheduler[0].milestones == [2, 3]


def test_data_of_another_format_are_replaced(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    voc = dict(base.train_dataloader.dataset, type='VOCDataset')
    inner = dict(type='ConcatDataset', datasets=[voc, voc])
    base.train_dataloader.dataset = dict(type='RepeatDataset', dataset=inner)
    base.val_evaluator = dict(type='VOCMetric')
    base.dump(config)
    folder = write_data(tmp_path / 'cells')
    cfg, _ = run(config, out, data=folder)
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'RepeatDataset'
    assert dataset.dataset.type == 'mmdet.CocoDataset'
    assert dataset.dataset.pipeline == [dict(type='PackDetInputs')]
    assert 'datasets' not in dataset.dataset
    assert cfg.val_evaluator.type == 'CocoMetric'


def test_the_eval_split_is_scored(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.test_evaluator.format_only = True
    base.dump(config)
    cfg, _ = run(config, out, data=write_data(tmp_path / 'cells'))
    assert cfg.test_evaluator.format_only is False
    assert 'format_only' not in cfg.val_evaluator


MASKS = 'mask2former/mask2former_r50_8xb2-lsj-50e_coco'


def test_classes_that_are_things(tmp_path, out):
    model = get_config(f'mmdet::{MASKS}.py').model
    model.backbone.update(R18)
    model.data_preprocessor.batch_augments = None
    head = model.panoptic_head
    head.update(in_channels=[8, 16, 32, 64], num_queries=5)
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 1
    config = tmp_path / 'float.py'
    base = whole(model)
    for stage in ('train', 'val', 'test'):
        data = base[f'{stage}_dataloader'].dataset
        data.metainfo.classes = CocoDataset.METAINFO['classes']
    base.dump(config)
    cfg, _ = run(config, out, data=write_data(tmp_path / 'cells'))
    count = len(cfg.own_data.metainfo.classes)
    head = cfg.model.panoptic_head
    assert head.num_things_classes == count
    assert head.loss_cls.class_weight == [1.0] * count + [0.1]
    assert cfg.model.panoptic_fusion_head.num_things_classes == count


def test_panoptic_maps_are_refused(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    step = dict(type='LoadPanopticAnnotations')
    base.train_dataloader.dataset.pipeline.insert(0, step)
    base.dump(config)
    folder = write_data(tmp_path / 'cells')
    refuse(ValueError, 'LoadPanopticAnnotations', config, out, data=folder)


def test_class_weights():
    """Three classes and the background."""
    data = dict(dataset=dict(metainfo=dict(classes=['a', 'b', 'c'])))
    loss = dict(class_weight=[2.0, 2.0, 2.0, 0.1])
    cfg = Config(dict(model=dict(loss=loss), train_dataloader=data))
    keys = ('loss', 'class_weight')
    assert list(class_settings(cfg, 2)) == [(keys, [2.0, 2.0, 0.1])]
    assert list(class_settings(cfg, 3)) == []
    cfg.model.loss.class_weight[0] = 1.0
    with pytest.raises(ValueError, match=r'model\.loss\.class_weight'):
        list(class_settings(cfg, 2))


def test_phrases_are_refused(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.train_dataloader.dataset.type = 'ODVGDataset'
    base.dump(config)
    folder = write_data(tmp_path / 'cells')
    refuse(ValueError, 'ODVGDataset', config, out, data=folder)


def test_a_sampler_of_several_data_sets_is_refused(tmp_path, out):
    """As in semi-supervised configs: one folder would end their training."""
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    name = 'GroupMultiSourceSampler'
    sampler = dict(type=name, batch_size=5, source_ratio=[1, 4])
    base.train_dataloader.sampler = sampler
    base.dump(config)
    folder = write_data(tmp_path / 'cells')
    refuse(ValueError, f'sampler is a {name}', config, out, data=folder)
