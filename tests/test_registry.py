"""Registered names in configs of any default scope."""

import pytest
import torch
from mmdet.models import FPN, ResNet, RetinaHead, RetinaNet
from mmdet.registry import MODELS as stock
from mmdet.registry import TASK_UTILS
from mmengine.registry import (
    HOOKS,
    MODELS,
    DefaultScope,
    Registry,
    init_default_scope,
)
from torch import nn

from mmgor.deploy import RuntimeDetector
from mmgor.distillation import Teachers
from mmgor.distillation.losses.features import PKDLoss
from mmgor.quantization import LSQQuantizer, calibrate
from mmgor.registry import find
from tests.support.models import (
    make_batch,
    quantized_cfg,
    retinanet_cfg,
    student_cfg,
)

SCOPE = 'downstream'


@pytest.fixture(scope='module')
def downstream():
    """A package on top of mmdet, such as mmyolo, with names of its own."""
    models = Registry('model', parent=MODELS, scope=SCOPE)
    Registry('hook', parent=HOOKS, scope=SCOPE)
    for name, base in (
        ('TheirBackbone', ResNet),
        ('TheirNeck', FPN),
        ('TheirHead', RetinaHead),
        ('TheirDetector', RetinaNet),
        # mmgor has this name, too.
        ('PKDLoss', nn.L1Loss),
        ('LSQQuantizer', nn.Identity),
    ):
        models.register_module(name=name, module=type(name, (base,), {}))
    yield models
    del MODELS._children[SCOPE], HOOKS._children[SCOPE]


@pytest.fixture
def scoped(downstream):
    with DefaultScope.overwrite_default_scope(SCOPE):
        yield downstream


def with_prefixes(cfg, keys=('type', 'detector')):
    """The same config with the prefix 'mmdet.' before stock names."""
    if isinstance(cfg, dict):
        return {k: prefixed(k, v, keys) for k, v in cfg.items()}
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(with_prefixes(v, keys) for v in cfg)
    return cfg


def prefixed(key, value, keys):
    known = [*stock.module_dict, *TASK_UTILS.module_dict]
    if key in keys and isinstance(value, str) and value in known:
        kind = stock.module_dict.get(value, RetinaNet)
        own = kind.__module__.startswith('mmgor.')
        return value if own else f'mmdet.{value}'
    return with_prefixes(value, keys)


def their_student(teacher_spec):
    teacher = dict(
        config=dict(
            default_scope='mmdet', model=retinanet_cfg(channels=12, fpn=24)
        ),
        checkpoint=teacher_spec['checkpoint'],
    )
    cfg = with_prefixes(student_cfg(None).to_dict())
    cfg['teachers'] = dict(big=teacher)
    cfg['detector'] = 'TheirDetector'
    cfg['backbone']['backbone'] = 'TheirBackbone'
    cfg['neck']['neck'] = 'TheirNeck'
    cfg['bbox_head']['head'] = 'TheirHead'
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


def test_a_part_with_a_scope_of_its_own(downstream):
    init_default_scope('mmdet')
    sizes = dict(in_channels=[4], out_channels=4, num_outs=1)
    cfg = dict(type='QuantNeck', neck='TheirNeck', _scope_=SCOPE, **sizes)
    assert type(stock.build(cfg)).__name__ == 'TheirNeck'


def test_an_exported_file_in_a_config_of_another_scope(scoped):
    assert scoped.get('RuntimeDetector') is RuntimeDetector


def test_a_teacher_that_cannot_be_built(scoped, teacher_spec):
    model = dict(retinanet_cfg(), type='RetinaNet')
    spec = dict(teacher_spec, config=dict(default_scope=SCOPE, model=model))
    message = "teacher 'big' could not be built from .*RetinaNet is not in"
    with pytest.raises(RuntimeError, match=message):
        Teachers(dict(big=spec)).build(torch.device('cpu'))


def test_hooks_of_another_scope(scoped):
    for name in (
        'QuantCalibrationHook',
        'GoRWeightHook',
        'NonFiniteLossHook',
    ):
        assert type(HOOKS.build(dict(type=name))).__name__ == name


def test_prefixed_names_of_mmgor(scoped):
    assert type(HOOKS.build(dict(type='mmdet.GoRWeightHook')))
    assert find('mmdet.PKDLoss') is PKDLoss
    cfg = quantized_cfg(
        input_quantizer=dict(type='mmdet.LSQQuantizer'),
        weight_quantizer=dict(type=LSQQuantizer),
    )
    cfg = with_prefixes(cfg.to_dict())
    cfg['neck']['neck'] = 'mmdet.FPN'
    neck = scoped.build(cfg['neck'])
    layer = neck.lateral_convs[0].conv
    assert type(layer.input_quantizer) is LSQQuantizer


@pytest.mark.parametrize('kind', [None, 3, '', 'nope', 'no.such.thing', []])
def test_nothing_is_found(kind):
    assert find(kind) is None
