"""The config of the documentation trains, is tested and exported."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmgor.datasets.shapes import CLASSES as NAMES
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.loading import class_names, load_detector
from mmgor.deploy.verify.verify_export import verify_export
from mmgor.quantization import calibrate, quantized_layers
from mmgor.registry import MODELS
from tests.support.mmyolo_students import (
    images,
    quantized,
    tiny,
    vary,
)
from tests.support.training import tiny_scenes

pytest.importorskip('mmyolo')
PAGE = Path(__file__).parents[2] / 'docs' / 'your_own_config.md'
SCALE = (64, 64)
FIT = [
    dict(type='YOLOv5KeepRatioResize', scale=SCALE),
    # A border of 16 px on each side.
    dict(type='LetterResize', scale=(96, 96), allow_scale_up=False),
]
KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


@pytest.fixture(scope='module')
def documented(tmp_path_factory):
    (code,) = re.findall(
        r'```python\n(# yolov8_n.*?)```', PAGE.read_text(), re.DOTALL
    )
    path = tmp_path_factory.mktemp('config') / 'config.py'
    path.write_text(code)
    return Config.fromfile(path)


def data(cfg, scenes):
    """The config's loaders on scenes of 64 px."""
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
    ]
    mosaic = [
        dict(type='Mosaic', img_scale=SCALE, pre_transform=load),
        dict(
            type='YOLOv5RandomAffine', max_aspect_ratio=10, border=(-32, -32)
        ),
    ]
    pack = dict(type='mmdet.PackDetInputs')
    for split, pipeline in (('train', mosaic), ('eval', FIT)):
        part = 'train' if split == 'train' else 'val'
        loader = cfg[f'{part}_dataloader']
        keys = KEYS if split == 'train' else (*KEYS, 'pad_param')
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(scenes),
            ann_file=f'{split}.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=NAMES),
            batch_shapes_cfg=None,
            pipeline=[*load, *pipeline, dict(pack, meta_keys=keys)],
        )
    cfg.test_dataloader = cfg.val_dataloader
    evaluator = dict(
        type='mmdet.CocoMetric',
        ann_file=str(scenes / 'eval.json'),
        metric='bbox',
    )
    cfg.val_evaluator = cfg.test_evaluator = evaluator


@pytest.fixture(scope='module')
def trained(documented, tmp_path_factory):
    """A config with few channels, and its run of two steps."""
    folder = tmp_path_factory.mktemp('run')
    cfg = Config(documented.to_dict())
    data(cfg, tiny_scenes(folder))
    wide, narrow = (tiny('yolov8', f, len(NAMES)) for f in (0.25, 0.125))
    teacher = MODELS.build(dict(wide, _scope_='mmyolo'))
    vary(teacher)
    torch.save(teacher.state_dict(), folder / 'teacher.pth')
    for key in ('backbone', 'neck'):
        cfg.model[key].widen_factor = narrow[key].widen_factor
    cfg.model.bbox_head.head_module = narrow.bbox_head.head_module
    cfg.model.train_cfg = narrow.train_cfg
    cfg.model.teachers.s.update(
        config=dict(default_scope='mmyolo', model=wide),
        checkpoint=str(folder / 'teacher.pth'),
    )
    cfg.model.kd_heads.neck.update(
        student_channels=[32, 64, 128], teacher_channels=[64, 128, 256]
    )
    switch = cfg.custom_hooks[1]
    assert switch.type == 'mmdet.PipelineSwitchHook'
    switch.switch_pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.update(load_from=None, work_dir=str(folder), log_level='ERROR')
    cfg.env_cfg.mp_cfg = dict(mp_start_method='fork')
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, cfg, folder


def test_the_documented_config_builds(documented):
    model = MODELS.build(documented.model)
    layers = quantized_layers(model)
    bits = {q.weight_quantizer.bits for q in layers.values()}
    assert bits == {4, 8} and len(layers) == 63
    kinds = [hook.type for hook in documented.custom_hooks]
    assert kinds[0] == 'EMAHook' and kinds[-1] == 'NonFiniteLossHook'


def test_a_run(trained):
    """EMA, loaders and evaluation are MMYOLO's; the teacher is evaluated."""
    runner, _, folder = trained
    assert runner.iter == 2
    scalars = next(folder.rglob('scalars.json')).read_text()
    for key in ('loss_kd_cls', 'loss_kd_box', 'loss_kd_neck', 'gor_w_kd'):
        assert key in scalars
    state = torch.load(folder / 'epoch_1.pth', weights_only=True)
    averaged, last = state['state_dict'], state['ema_state_dict']
    steps = [k for k in averaged if k.endswith('log_scale')]
    assert steps and all(averaged[k].isfinite().all() for k in steps)
    assert f'module.{steps[0]}' in last


@pytest.mark.parametrize('name', ['yolov5', 'yolov8'])
def test_an_export_gives_the_same(name, trained, tmp_path):
    """On the images of the loader, which have a border."""
    _, run, _ = trained
    model = quantized(tiny(name, classes=len(NAMES)))
    cfg = Config(dict(run.to_dict(), model=model))
    model = MODELS.build(dict(cfg.model, _scope_='mmyolo'))
    vary(model)
    calibrate(model, [images()[..., :96, :96].float() / 255], model)
    meta = dict(dataset_meta=dict(classes=NAMES))
    weights, path = tmp_path / 'a.pth', tmp_path / 'a.onnx'
    torch.save(dict(state_dict=model.state_dict(), meta=meta), weights)
    model = load_detector(cfg, weights)
    export_detector(model, cfg, path, (96, 96), class_names(cfg, model))
    found = verify_export(cfg, weights, path, images=4)
    assert found.failures() == []
