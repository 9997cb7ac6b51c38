"""MMYOLO's shipped configs become students by mmgor convert."""

import copy

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.datasets.shapes import CLASSES as NAMES
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.conversion import write_float, write_weights
from tests.support.mmyolo_students import CLASSES, STUDENTS, shipped, tiny
from tests.support.training import tiny_scenes

from .test_mmyolo_training import data

pytest.importorskip('mmyolo')


def test_a_converted_config_trains(tmp_path):
    out = tmp_path / 'student.py'
    name = f'mmyolo::{STUDENTS["yolov8"]}.py'
    convert(Request(name, out, epochs=1), lambda _: None)
    cfg = Config.fromfile(out)
    collate = cfg.train_dataloader.collate_fn
    assert dict(collate) == dict(type='yolov5_collate')
    data(cfg, tiny_scenes(tmp_path / 'scenes'))
    narrow = tiny('yolov8', classes=len(NAMES))
    for key in ('backbone', 'neck'):
        cfg.model[key].widen_factor = narrow[key].widen_factor
    cfg.model.bbox_head.head_module = narrow.bbox_head.head_module
    cfg.model.train_cfg = narrow.train_cfg
    cfg.custom_hooks[1].switch_pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.update(load_from=None, work_dir=str(tmp_path), log_level='ERROR')
    cfg.env_cfg.mp_cfg = dict(mp_start_method='fork')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    rates = runner.optim_wrapper.get_lr()['lr']
    assert 0 < max(rates) <= 1e-4


def write_tiny(name, path):
    cfg = copy.deepcopy(shipped(name))
    cfg.model = tiny(name)
    for loader in ('train', 'val', 'test'):
        dataset = cfg[f'{loader}_dataloader'].dataset
        dataset.metainfo = dict(classes=CLASSES)
    cfg.dump(path)
    return cfg


def test_a_teacher_of_another_scope(tmp_path):
    base, out = tmp_path / 'float.py', tmp_path / 'student.py'
    write_tiny('yolov8', base)
    other = write_float(tmp_path)
    dense = Config.fromfile(other)
    for loader in ('train', 'val', 'test'):
        dense[f'{loader}_dataloader'].dataset.metainfo.classes = CLASSES
    dense.dump(other)
    with DefaultScope.overwrite_default_scope('mmdet'):
        teachers = [f'{other}:{write_weights(other)}']
    convert(Request(str(base), out, teachers=teachers), lambda _: None)
    student = Config.fromfile(out)
    assert student.default_scope == 'mmyolo'
    assert {*student.model.kd_heads} == {'score', 'box'}


@pytest.mark.parametrize('name', list(STUDENTS))
def test_a_student(name, tmp_path):
    base, out = tmp_path / 'float.py', tmp_path / 'student.py'
    cfg = write_tiny(name, base)
    request = Request(str(base), out, epochs=10)
    trial = convert(request, lambda _: None)
    # No box of noise may fit a level of random weights.
    assert all('bbox_head' in layer for layer in trial.still)
    student = Config.fromfile(out)
    assert student.train_cfg.max_epochs == 10
    assert student.optim_wrapper.optimizer.type == 'AdamW'
    hook = student.default_hooks.get('param_scheduler') or {}
    assert hook.get('warmup_bias_lr', 0.0) == 0.0
    stock = cfg.default_hooks.get('param_scheduler') or {}
    for key in {'max_epochs', 'total_epochs'} & set(stock):
        assert hook[key] == stock[key] * 10 // cfg.train_cfg.max_epochs
    layers = quantized_layers(MODELS.build(student.model))
    assert len(layers) == trial.quantized > 30
