"""MMYOLO's detectors as students and teachers, of their own and of mmdet's."""

from functools import partial

import pytest
import torch
from mmengine.registry import init_default_scope

from mmgor.distillation import as_samples
from mmgor.hooks.student import run_losses
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.mmyolo_students import (
    CLASSES,
    SIDE,
    batch,
    quantized,
    tiny,
    vary,
    with_teacher,
)
from tests.support.models import retinanet_cfg

pytest.importorskip('mmyolo')
NECK = dict(type='FeatureKDHead', strides=(8, 16, 32))
HEADS = dict(
    cls=dict(type='LogitKDHead'),
    score=dict(type='ScoreKDHead'),
    box=dict(type='BoxKDHead'),
    found=dict(type='DetectionKDHead', min_score=0.0),
)


def channels(model):
    images = torch.zeros(1, 3, 64, 64)
    return [x.shape[1] for x in MODELS.build(model).extract_feat(images)]


def teacher(cfg, path, scope='mmyolo'):
    """A teacher with random weights."""
    model = MODELS.build(dict(cfg, _scope_=scope))
    model.init_weights()
    vary(model)
    torch.save(model.state_dict(), path)
    return dict(default_scope=scope, model=cfg)


def step(cfg, name):
    """Losses of the first step of a student."""
    model = MODELS.build(cfg)
    model.init_weights()
    vary(model)
    model.map_classes(None)
    calibrate(model, [batch(name)], partial(run_losses, model))
    model.train()
    data = model.data_preprocessor(batch(name), True)
    loss, values = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    return model, values


@pytest.mark.parametrize('name', ['yolov5', 'yolov7', 'yolov8', 'ppyoloe'])
def test_all_heads_with_a_wider_teacher(name, tmp_path):
    path = tmp_path / 'a.pth'
    wide, narrow = tiny(name, 0.25), tiny(name)
    neck = dict(
        NECK,
        student_channels=channels(narrow),
        teacher_channels=channels(wide),
    )
    spec = teacher(wide, path)
    cfg = with_teacher(quantized(narrow), spec, path, neck=neck, **HEADS)
    model, values = step(cfg, name)
    assert {f'loss_kd_{key}' for key in (*HEADS, 'neck')} <= set(values)
    for key in ('cls', 'score', 'box', 'neck'):
        assert values[f'loss_kd_{key}'] > 0, key
    assert type(model.teachers['big'].model).__name__ == 'YOLODetector'


def test_from_yolov5_to_rtmdet(tmp_path):
    """Other anchors: scores and boxes of the best anchor of a location."""
    path = tmp_path / 'a.pth'
    heads = {key: HEADS[key] for key in ('score', 'box', 'found')}
    spec = teacher(tiny('yolov5'), path)
    cfg = with_teacher(quantized(tiny('rtmdet')), spec, path, **heads)
    _, values = step(cfg, 'rtmdet')
    assert values['loss_kd_score'] > 0 and values['loss_kd_box'] > 0


@pytest.mark.parametrize('name', ['yolov6', 'yolox'])
def test_a_teacher_of_mmdet(name, tmp_path):
    path = tmp_path / 'a.pth'
    heads = {key: HEADS[key] for key in ('score', 'box', 'found')}
    stock = retinanet_cfg(classes=len(CLASSES))
    spec = teacher(stock, path, 'mmdet')
    cfg = with_teacher(quantized(tiny(name)), spec, path, **heads)
    model, values = step(cfg, name)
    assert values['loss_kd_score'] > 0 and values['loss_kd_box'] > 0
    assert type(model.teachers['big'].model).__name__ == 'RetinaNet'


def test_a_teacher_of_a_student_of_mmdet(tmp_path):
    path = tmp_path / 'a.pth'
    spec = teacher(tiny('yolov8'), path)
    student = quantized(retinanet_cfg())
    init_default_scope('mmdet')
    heads = dict(score=HEADS['score'], found=HEADS['found'])
    cfg = with_teacher(student, spec, path, **heads)
    model = MODELS.build(cfg)
    model.init_weights()
    model.map_classes(None)
    meta = dict(batch_input_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE))
    table = batch('yolov8')['data_samples']
    samples = as_samples(dict(table, img_metas=[meta] * 2))
    images = torch.randn(2, 3, SIDE, SIDE)
    calibrate(model, [images], model)
    losses = model.loss(images, samples)
    assert losses['loss_kd_score'] > 0
