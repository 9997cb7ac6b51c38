"""The form in which a teacher runs, and what it falls back to."""

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RetinaHead
from torch import nn

from mmgor.distillation.teachers import fast_form
from mmgor.distillation.teachers.fast_form import (
    Form,
    has_bfloat16,
    possible_forms,
)
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.kd import CPU, one_teacher, outputs_of
from tests.support.models import make_batch, retinanet_cfg

HALF = torch.bfloat16


@MODELS.register_module()
class PickyNeck(nn.Module):
    """A neck with an operator that takes one type, or reads memory in its
    order."""

    def __init__(self, neck, needs_float, reads_memory) -> None:
        super().__init__()
        self.neck = MODELS.build(neck)
        self.needs_float, self.reads_memory = needs_float, reads_memory

    def forward(self, features):
        features = self.neck(features)
        if self.needs_float and features[0].dtype != torch.float32:
            raise RuntimeError('no kernel for this type')
        if not self.reads_memory:
            return features
        return [
            x.as_strided(x.shape, torch.empty(x.shape).stride())
            for x in features
        ]


def with_statistics(path, **neck):
    """A config and its checkpoint, in which batch norm changes its input."""
    cfg = retinanet_cfg()
    if neck:
        cfg.neck = dict(type='PickyNeck', neck=cfg.neck, **neck)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.save(model.state_dict(), path)
    return cfg, model.eval()


def built(cfg, path, taps=(), **options):
    teachers = one_teacher(config=cfg, checkpoint=str(path), **options)
    teachers.build(CPU, taps)
    return teachers['big']


def outputs(teacher, *taps):
    found = outputs_of(teacher, *taps)
    return [found[tap].output for tap in taps]


@torch.no_grad()
def wanted(model):
    features = model.extract_feat(make_batch()['inputs'])
    return list(features), model.bbox_head(features)


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_batch_norm_is_folded(tmp_path):
    path = tmp_path / 'a.pth'
    cfg, model = with_statistics(path)
    teacher = built(cfg, path, dtype='float32')
    assert not batch_norms(teacher.model)
    features, logits = outputs(teacher, 'neck', 'bbox_head')
    torch.testing.assert_close((list(features), logits), wanted(model))
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_batch_norm_before_a_convolution_is_not_folded(tmp_path):
    """mmcv's function takes the order of construction for that of calls."""
    path = tmp_path / 'a.pth'
    cfg = retinanet_cfg()
    cfg.neck.update(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))
    order = ('norm', 'act', 'conv')
    cfg.neck = dict(type='OrderedNeck', neck=cfg.neck, order=order)
    torch.save(MODELS.build(cfg).state_dict(), path)
    teacher = built(cfg, path, dtype='float32')
    assert not batch_norms(teacher.model.backbone)
    assert len(batch_norms(teacher.model.neck)) == 8


@MODELS.register_module()
class OrderedNeck(nn.Module):
    """A neck whose ConvModules compute in another order."""

    def __init__(self, neck, order) -> None:
        super().__init__()
        self.neck = MODELS.build(neck)
        for module in self.neck.modules():
            if isinstance(module, ConvModule):
                channels = module.conv.in_channels
                module.order = order
                module.norm_name = 'bn'
                module.bn = nn.BatchNorm2d(channels)

    def forward(self, features):
        return self.neck(features)


def test_a_head_that_needs_more_than_features(tmp_path, monkeypatch):
    """It matters only if it is tapped."""
    path = tmp_path / 'a.pth'
    cfg, _ = with_statistics(path)
    said = []
    monkeypatch.setattr(
        'mmgor.distillation.teachers.teacher.print_log',
        lambda text, _: said.append(text),
    )
    monkeypatch.setattr(RetinaHead, 'forward', lambda self: None)
    assert not batch_norms(built(cfg, path, ['neck']).model)
    assert not said
    plain = built(cfg, path, ['bbox_head'], dtype='bfloat16')
    assert batch_norms(plain.model)
    assert 'could not be tried on noise (TypeError' in said[0]


def test_a_tapped_convolution_keeps_its_output(tmp_path):
    path, tap = tmp_path / 'a.pth', 'backbone.conv1'
    cfg, model = with_statistics(path)
    teacher = built(cfg, path, [tap, 'nothing.of.this'], dtype='float32')
    assert len(batch_norms(teacher.model)) == len(batch_norms(model))
    with torch.no_grad():
        want = model.backbone.conv1(make_batch()['inputs'])
    torch.testing.assert_close(outputs(teacher, tap), [want])


def test_quantized_weights_stay_on_their_grid(tmp_path):
    path = tmp_path / 'a.pth'
    cfg, _ = with_statistics(path)
    cfg.backbone.update(
        type='QuantBackbone',
        backbone='ResNet',
        quant=dict(w_bits=4, a_bits=4),
    )
    model = MODELS.build(cfg)
    calibrate(model, [make_batch()['inputs']], model)
    torch.save(model.state_dict(), path)
    teacher = built(cfg, path)
    (got,) = outputs(teacher, 'neck')
    torch.testing.assert_close(list(got), wanted(model.eval())[0])
    after = teacher.model.state_dict()
    assert after.keys() == model.state_dict().keys()


def test_bfloat16_where_the_device_has_units(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    cfg, model = with_statistics(path)
    monkeypatch.setattr(fast_form, 'has_bfloat16', lambda device: True)
    teacher = built(cfg, path, ['neck', 'bbox_head'])
    assert teacher._form == Form(HALF, True)
    got = outputs(teacher, 'neck', 'bbox_head')
    for a, b in zip(got[0], wanted(model)[0], strict=True):
        assert a.dtype == torch.float32 and a.is_contiguous()
        assert 0 < (a - b).abs().mean() < 0.02 * b.abs().mean()
    for a, b in zip(got[1][0], wanted(model)[1][0], strict=True):
        assert (a - b).abs().mean() < 0.02 * b.abs().mean()
    for a in outputs(built(cfg, path), 'bbox_head')[0][0]:
        assert (a != a.bfloat16()).any()  # not tried, so in float32
    (found,) = outputs(teacher, 'detections')
    assert found[0].bboxes.dtype == torch.float32


@pytest.mark.parametrize(
    'needs_float, reads_memory, form',
    [
        (True, False, Form(None, True)),
        (False, True, Form(HALF, False)),
        (True, True, Form()),
    ],
)
def test_a_form_that_an_operator_does_not_know_is_not_taken(
    tmp_path, monkeypatch, caplog, needs_float, reads_memory, form
):
    path = tmp_path / 'a.pth'
    cfg, model = with_statistics(
        path, needs_float=needs_float, reads_memory=reads_memory
    )
    monkeypatch.setattr(fast_form, 'has_bfloat16', lambda device: True)
    said = []
    monkeypatch.setattr(
        'mmgor.distillation.teachers.teacher.print_log',
        lambda text, _: said.append(text),
    )
    teacher = built(cfg, path)
    assert teacher._form == form
    why = 'no kernel' if needs_float else r'differ by'
    assert len(said) == 1 and why in said[0]
    (got,) = outputs(teacher, 'neck')
    for a, b in zip(got, wanted(model)[0], strict=True):
        assert (a - b).abs().mean() < 0.02 * b.abs().mean()


def test_what_is_asked_for_is_tried_alone(monkeypatch):
    monkeypatch.setattr(fast_form, 'has_bfloat16', lambda device: True)
    assert possible_forms('bfloat16', True, CPU) == [Form(HALF, True)]
    assert possible_forms('float32', False, CPU) == [Form()]
    assert possible_forms('auto', 'auto', CPU) == [
        Form(HALF, True),
        Form(HALF, False),
        Form(None, True),
        Form(),
    ]


def test_units_for_bfloat16(monkeypatch):
    known = dict(avx512_bf16=True)
    monkeypatch.setattr(
        torch.cpu, 'get_capabilities', lambda: known, raising=False
    )
    assert has_bfloat16(CPU)
    assert not has_bfloat16(torch.device('meta'))
    known.clear()
    assert not has_bfloat16(CPU)
