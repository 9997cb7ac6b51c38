"""Registered names in configs of any default scope."""

import logging
import pickle

import pytest
import torch
from mmdet.models import FPN, RetinaNet
from mmdet.registry import MODELS as stock
from mmengine.config import Config
from mmengine.registry import (
    HOOKS,
    LOOPS,
    MODELS,
    DefaultScope,
    init_default_scope,
)
from mmengine.runner import Runner

from mmgor.deploy import RuntimeDetector
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.loading import class_names, load_detector
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.distillation import Teachers
from mmgor.distillation.losses.features import PKDLoss
from mmgor.quantization import LSQQuantizer, calibrate, quantized_layers
from mmgor.registry import find
from tests.support import one_level
from tests.support.models import (
    make_batch,
    quantized_cfg,
    retinanet_cfg,
    student_cfg,
)
from tests.support.scopes import (
    CLASSES,
    SCOPE,
    downstream,
    their_parts,
    with_prefixes,
)
from tests.support.students import quantized, tiny
from tests.support.training import scene_teacher, tiny_scenes, training_config

# A library of the test's own, one that is not installed, and no library.
SCOPES = [SCOPE, 'mmpose', 'no_library']


@pytest.fixture(scope='module', autouse=True)
def library():
    with downstream() as models:
        yield models


@pytest.fixture(autouse=True)
def start_in_mmdet():
    init_default_scope('mmdet')


@pytest.fixture
def scoped(library):
    with DefaultScope.overwrite_default_scope(SCOPE):
        yield library


def own_modules(registry):
    """Name -> module, for what mmgor registered in this registry."""
    known = registry.module_dict.items()
    return {k: m for k, m in known if m.__module__.startswith('mmgor.')}


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('root, few', [(MODELS, 40), (HOOKS, 4), (LOOPS, 1)])
def test_a_runner_finds_every_name_without_a_prefix(root, few, scope):
    """It asks mmengine's registries, in the config's default scope."""
    theirs = getattr(root.children.get(scope), 'module_dict', {})
    own = own_modules(root)
    assert own.keys() >= own_modules(root.children['mmdet']).keys()
    assert len(own) >= few
    with root.switch_scope_and_registry(scope) as level:
        for name in own.keys() - theirs.keys():
            assert level.get(name) is own[name], name


@pytest.mark.parametrize('scope', SCOPES)
def test_a_name_in_a_part_of_mmgor_is_that_of_mmgor(scope):
    own = own_modules(stock)
    assert {'PKDLoss', 'LSQQuantizer', 'GoRWeighting'} <= own.keys()
    for name, module in own.items():
        assert find(name, scope) is module


def their_student(teacher_spec):
    teacher = dict(
        config=dict(
            default_scope='mmdet', model=retinanet_cfg(channels=12, fpn=24)
        ),
        checkpoint=teacher_spec['checkpoint'],
    )
    cfg = their_parts(student_cfg(None))
    cfg['teachers'] = dict(big=teacher)
    return cfg


def test_a_student_of_another_scope(scoped, teacher_spec):
    model = scoped.build(their_student(teacher_spec))
    assert type(model).__name__ == 'GoRTheirDetector'
    assert type(model.backbone).__name__ == 'TheirBackbone'
    quantizer = model.neck.lateral_convs[0].conv.weight_quantizer
    assert type(quantizer) is LSQQuantizer
    assert type(model.kd_heads.neck.losses[0]) is PKDLoss
    model.init_weights()
    model.map_classes(None)
    batch = make_batch()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    seen = []
    teacher = model.teachers['big'].model
    assert type(teacher) is RetinaNet
    teacher.backbone.register_forward_hook(
        lambda *_: seen.append(DefaultScope.get_current_instance().scope_name)
    )
    losses = model(**batch, mode='loss')
    assert losses['loss_kd_cls'] > 0
    assert seen == ['mmdet']
    assert DefaultScope.get_current_instance().scope_name == SCOPE


@pytest.mark.parametrize('name', ['mmdet.FPN', FPN])
def test_stock_parts_with_a_prefix_or_as_a_class(scoped, name):
    sizes = dict(in_channels=[4], out_channels=4, num_outs=1)
    neck = scoped.build(dict(type='QuantNeck', neck=name, **sizes))
    assert type(neck) is FPN
    layer = neck.lateral_convs[0].conv
    assert type(layer.input_quantizer) is LSQQuantizer


def test_parts_of_another_library_in_mmdets_scope(teacher_spec):
    cfg = their_parts(student_cfg(teacher_spec), f'{SCOPE}.')
    model = stock.build(cfg)
    names = [type(m).__name__ for m in (model, model.neck, model.bbox_head)]
    assert names == ['GoRTheirDetector', 'TheirNeck', 'TheirHead']
    assert len(quantized_layers(model)) == len(
        quantized_layers(stock.build(quantized_cfg()))
    )
    # As a DataLoader of another process does.
    assert pickle.loads(pickle.dumps(type(model))) is type(model)


def test_a_part_of_a_library_that_cannot_be_imported():
    cfg = dict(type='QuantBackbone', backbone='no_library.ConvNeXt')
    with pytest.raises(ValueError, match=r"'no_library' could .*: No module"):
        stock.build(cfg)
    for scope in ('mmdet', SCOPE):
        with pytest.raises(ValueError, match=r'type=\.\.\.\.$'):
            stock.build(dict(cfg, backbone=f'{scope}.Nothing'))


def test_a_part_with_a_scope_of_its_own():
    sizes = dict(in_channels=[4], out_channels=4, num_outs=1)
    cfg = dict(type='QuantNeck', neck='TheirNeck', _scope_=SCOPE, **sizes)
    assert type(stock.build(cfg)).__name__ == 'TheirNeck'


def test_a_transformer(scoped):
    cfg = quantized(tiny('deformable_detr/deformable-detr_r50_16xb2-50e_coco'))
    model = scoped.build(with_prefixes(cfg))
    layer = model.encoder.layers[0].ffn.layers[1]
    assert type(layer.input_quantizer) is LSQQuantizer


def test_an_exported_file_in_a_config_of_another_scope(scoped):
    assert scoped.get('RuntimeDetector') is RuntimeDetector


def test_a_teacher_that_cannot_be_built(scoped, teacher_spec):
    model = dict(retinanet_cfg(), type='RetinaNet')
    spec = dict(teacher_spec, config=dict(default_scope=SCOPE, model=model))
    message = "teacher 'big' could not be built from .*RetinaNet is not in"
    with pytest.raises(RuntimeError, match=message):
        Teachers(dict(big=spec)).build(torch.device('cpu'))


@pytest.mark.parametrize('scope, theirs', [('mmdet', SCOPE), (SCOPE, 'mmdet')])
def test_class_names_of_a_teacher_of_another_scope(
    scope, theirs, teacher_spec
):
    """They are those of the data set in the teacher's own library."""
    kind = 'TheirDataset' if theirs == SCOPE else 'CocoDataset'
    model = with_prefixes(retinanet_cfg(channels=12, fpn=24))
    config = dict(
        default_scope=theirs,
        model=model,
        val_dataloader=dict(dataset=dict(type=kind)),
    )
    teachers = Teachers(dict(big=dict(teacher_spec, config=config)))
    with DefaultScope.overwrite_default_scope(scope):
        teachers.build(torch.device('cpu'))
    wanted = CLASSES if theirs == SCOPE else ('person', 'bicycle', 'car')
    assert teachers['big'].classes[:3] == wanted


@pytest.mark.parametrize('scope', [SCOPE, 'no_library'])
def test_a_training_run(scope, tmp_path):
    """Data, hooks, loops and teacher in a Runner of that default scope."""
    scenes = tiny_scenes(tmp_path)
    teacher = scene_teacher(tmp_path)
    cfg = training_config(scenes, tmp_path / scope, teacher)
    cfg.model.teachers.big.config = dict(
        default_scope='mmdet', model=cfg.model.teachers.big.config
    )
    cfg = Config(with_prefixes(cfg.to_dict()))
    cfg.default_scope = scope
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    scalars = (tmp_path / scope).rglob('scalars.json')
    assert 'loss_kd_cls' in next(scalars).read_text()


def test_an_export_of_another_scope(tmp_path):
    student, cfg = one_level.student()
    cfg.model, cfg.default_scope = their_parts(cfg.model), SCOPE
    weights, path = tmp_path / 'a.pth', tmp_path / 'a.onnx'
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=student.state_dict(), meta=meta), weights)
    model = load_detector(cfg, weights)
    assert type(model).__name__ == 'TheirDetector'
    names = class_names(cfg, model)
    assert names == CLASSES
    export_detector(model, cfg, path, one_level.SIZE, names)
    init_default_scope('mmdet')  # as in a new process
    exported = stock.build(runtime_model(cfg, path)).eval()
    assert type(exported.bbox_head).__name__ == 'TheirHead'
    images = torch.randn(1, 3, *one_level.SIZE)
    with torch.no_grad():
        wanted = student(images)[0][0]
    got = exported.outputs(images)[0][0]
    assert (got - wanted).abs().mean() < 1e-3 * wanted.std()


def test_prefixed_names_of_mmgor(scoped):
    assert type(HOOKS.build(dict(type='mmdet.GoRWeightHook')))
    assert find('mmdet.PKDLoss') is PKDLoss
    cfg = quantized_cfg(
        input_quantizer=dict(type='mmdet.LSQQuantizer'),
        weight_quantizer=dict(type=LSQQuantizer),
    )
    neck = scoped.build(with_prefixes(cfg)['neck'])
    layer = neck.lateral_convs[0].conv
    assert type(layer.input_quantizer) is LSQQuantizer


@pytest.mark.parametrize('kind', [None, 3, '', 'nope', 'no.such.thing', []])
def test_nothing_is_found(kind):
    assert find(kind) is None


def test_a_shipped_config_is_a_base(tmp_path, monkeypatch):
    """What it defines has the scope 'mmgor', which looks in mmdet's."""
    warned = []

    def note(text, logger=None, level=logging.INFO):
        warned.extend([text] if level >= logging.WARNING else [])

    monkeypatch.setattr('mmengine.logging.print_log', note)
    path = tmp_path / 'own.py'
    path.write_text(
        "_base_ = 'mmgor::gor/retinanet_r18_w4_from_r101.py'\n"
        'model = dict(bbox_head=dict(num_classes=3))\n'
    )
    cfg = Config.fromfile(path)
    assert cfg.model.detector == 'RetinaNet'
    hooks = [HOOKS.build(hook) for hook in cfg.custom_hooks]
    assert {hook['_scope_'] for hook in cfg.custom_hooks} == {'mmgor'}
    assert type(hooks[0]).__name__ == 'QuantCalibrationHook'
    backbone = dict(type='ResNet', depth=18, _scope_='mmgor')
    assert type(MODELS.build(backbone)) is stock.get('ResNet')
    assert warned == []
