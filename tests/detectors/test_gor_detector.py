"""GoRDetector and GoRMixin: what a student adds to its stock detector."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import make_batch, quantized_cfg, student_cfg


def build(teacher_spec, **overrides):
    torch.manual_seed(0)
    model = MODELS.build(student_cfg(teacher_spec, **overrides))
    model.init_weights()
    model.map_classes(None)
    batch = make_batch()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    return model


def total(model, losses):
    loss, _ = model.parse_losses(losses)
    return loss


def test_the_student_is_a_subclass_of_the_stock_detector(teacher_spec):
    model = build(teacher_spec)
    assert type(model).__name__ == 'GoRRetinaNet'
    assert isinstance(model, MODELS.get('RetinaNet'))


def test_stock_losses_are_untouched(teacher_spec, batch):
    model = build(
        teacher_spec,
        gor_weighting=dict(
            type='FixedWeighting', task_weight=1.0, kd_weight=0.0
        ),
    ).eval()
    plain = MODELS.build(quantized_cfg())
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.eval()
    want = plain(**copy.deepcopy(batch), mode='loss')
    got = model(**batch, mode='loss')
    for key in ('loss_cls', 'loss_bbox'):
        for a, b in zip(got[key], want[key]):
            torch.testing.assert_close(a, b)


def _loss_and_gradients(model, call, change, batch):
    model.zero_grad()
    with torch.no_grad():
        model.neck.fpn_convs[0].conv.weight.mul_(change)
    loss = total(model, call(**batch, mode='loss'))
    loss.backward()
    return loss, [p.grad for p in model.parameters()]


def test_a_compiler_gets_the_stock_loss(teacher_spec, batch, monkeypatch):
    """Backbone, neck and head are in its graphs; teachers are not."""
    model = build(teacher_spec)
    # mmdet's assignment takes long to trace.
    model.bbox_head.loss_by_feat = lambda scores, boxes, *_, **__: dict(
        loss_cls=sum(x.square().mean() for x in (*scores, *boxes))
    )
    eager = copy.deepcopy(model)
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    torch._dynamo.reset()
    calls = Counter()

    def backend(graph, inputs):
        calls.update(n.target for n in graph.graph.nodes)
        return graph

    step = torch.compile(model, backend=backend)
    for change in (1.0, 1.1, 0.9):  # each step records its own features
        want, got = (
            _loss_and_gradients(one, call, change, copy.deepcopy(batch))
            for one, call in ((eager, eager), (model, step))
        )
        torch.testing.assert_close(got, want)
    torch._dynamo.reset()
    count = [
        sum(isinstance(m, nn.Conv2d) for m in part.modules())
        for part in (model.backbone, model.neck, model.bbox_head)
    ]
    levels = len(model.bbox_head.prior_generator.strides)
    assert calls[torch.conv2d] == count[0] + count[1] + levels * count[2]


def test_one_step_trains_student_connectors_and_thetas(teacher_spec, batch):
    model = build(teacher_spec)
    losses = model(**batch, mode='loss')
    assert {'loss_kd_cls', 'loss_kd_neck', 'loss_gor'} <= set(losses)
    total(model, losses).backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert without == []
    teacher = model.teachers['big'].model
    assert all(p.grad is None for p in teacher.parameters())


def test_teacher_is_in_no_state_dict_and_no_copy(teacher_spec):
    model = build(teacher_spec)
    keys = model.state_dict()
    assert not any('teacher' in key for key in keys)
    twin = copy.deepcopy(model)
    assert twin.state_dict().keys() == keys.keys()
    assert twin.teachers['big'].model is model.teachers['big'].model
    model.train()
    assert not model.teachers['big'].model.training


@pytest.mark.parametrize(
    'move',
    [
        lambda model: copy.deepcopy(model).double(),
        lambda model: ExponentialMovingAverage(model, device='meta'),
    ],
    ids=['double', 'ema'],
)
def test_a_moved_copy_does_not_move_the_originals_teachers(
    teacher_spec, batch, move
):
    model = build(teacher_spec)
    want = model.eval()(**copy.deepcopy(batch), mode='loss')
    move(model)
    got = model(**batch, mode='loss')
    for key in ('loss_kd_cls', 'loss_kd_neck'):
        assert torch.equal(got[key], want[key])


def test_predict_needs_no_teacher_files(batch):
    spec = dict(config='gone.py', checkpoint='gone.pth')
    model = MODELS.build(student_cfg(spec))
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    model.eval()
    with torch.no_grad():
        results = model(**batch, mode='predict')
    assert len(results) == 2
    assert results[0].pred_instances.bboxes.shape[1] == 4


def test_no_hook_stays_after_a_step(teacher_spec, batch):
    model = build(teacher_spec)
    roots = model, model.teachers['big'].model
    modules = [m for root in roots for m in root.modules()]
    before = [len(m._forward_hooks) for m in modules]
    model(**batch, mode='loss')
    assert [len(m._forward_hooks) for m in modules] == before


def test_a_batch_without_boxes_trains(teacher_spec):
    model = build(teacher_spec)
    batch = make_batch(boxes=0)
    loss = total(model, model(**batch, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)


def test_published_file_reports_nothing_missing(teacher_spec):
    model = build(teacher_spec)
    stripped = {
        k: v
        for k, v in model.state_dict().items()
        if not k.startswith(('kd_heads.', 'gor_weighting.'))
    }
    fresh = MODELS.build(student_cfg(teacher_spec))
    result = fresh.load_state_dict(stripped, strict=False)
    assert result.missing_keys == []


def test_a_file_that_matches_nothing_is_an_error(teacher_spec):
    model = MODELS.build(student_cfg(teacher_spec))
    with pytest.raises(RuntimeError, match='matches nothing of the GoRRetina'):
        model.load_state_dict({'foo': torch.zeros(1)}, strict=False)


def test_gradient_diagnostics_on_demand(teacher_spec, batch):
    model = build(teacher_spec)
    assert 'gor_grad_ratio' not in model(**batch, mode='loss')
    model.gor_weighting.measure_gradients = True
    losses = model(**batch, mode='loss')
    assert losses['gor_grad_ratio'] > 0
    assert -1 <= losses['gor_grad_cosine'] <= 1
    assert all(p.grad is None for p in model.parameters())
    total(model, losses).backward()


@pytest.mark.parametrize(
    'overrides, message',
    [
        (dict(detector='RetinaNot'), "detector='RetinaNot' is not a regis"),
        (dict(detector='ResNet'), "detector='ResNet' is not a regis"),
        (dict(kd_heads={}), 'at least one KD head'),
        (
            dict(kd_heads=dict(a=dict(type='LogitKDHead', teacher='no'))),
            r"unknown teacher \['no'\] in kd_heads.a; expected some of \['big",
        ),
        (
            dict(
                kd_heads=dict(a=dict(type='LogitKDHead', student_tap='head'))
            ),
            r"unknown tap 'head' in the student \(student_tap of kd_heads.a",
        ),
        (
            dict(gradient_tap='nek'),
            r"unknown tap 'nek' in the student \(gradient_tap\)",
        ),
    ],
)
def test_bad_config(teacher_spec, overrides, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(student_cfg(teacher_spec, **overrides))


def test_two_teachers_must_be_named(teacher_spec):
    with pytest.raises(ValueError, match='every head must name its own'):
        MODELS.build(
            student_cfg(
                teacher_spec, teachers=dict(a=teacher_spec, b=teacher_spec)
            )
        )


def test_a_teacher_without_a_head_is_an_error(teacher_spec):
    cfg = student_cfg(
        teacher_spec, teachers=dict(big=teacher_spec, idle=teacher_spec)
    )
    for head in cfg['kd_heads'].values():
        head['teacher'] = 'big'
    with pytest.raises(ValueError, match=r"teacher\(s\) \['idle'\]"):
        MODELS.build(cfg)


def test_teachers_of_one_file_run_once(teacher_spec, monkeypatch):
    cfg = student_cfg(
        teacher_spec, teachers=dict(a=teacher_spec, b=teacher_spec)
    )
    for head, name in zip(cfg['kd_heads'].values(), 'ab'):
        head['teacher'] = name
    model = MODELS.build(cfg)
    model.init_weights()
    model.map_classes(None)
    batch = make_batch()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    shared = model.teachers['a'].model
    assert shared is model.teachers['b'].model
    calls = []
    shared.backbone.register_forward_hook(lambda *_: calls.append(1))
    losses = model(**batch, mode='loss')
    assert len(calls) == 1
    assert {'loss_kd_cls', 'loss_kd_neck'} <= set(losses)


def test_models_can_be_pickled(teacher_spec):
    model = build(teacher_spec)
    copied = pickle.loads(pickle.dumps(model))
    assert type(copied) is type(model)


def test_training_before_teachers_are_built(teacher_spec, batch):
    model = MODELS.build(student_cfg(teacher_spec))
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    with pytest.raises(RuntimeError, match='not built'):
        model(**batch, mode='loss')


def test_the_teacher_moves_with_the_student(teacher_spec):
    model = build(teacher_spec).double()
    teacher = model.teachers['big'].model
    assert next(teacher.parameters()).dtype == torch.float64
    assert teacher.data_preprocessor.mean.dtype == torch.float64


def test_another_detector_class(teacher_spec):
    cfg = student_cfg(teacher_spec, detector='FCOS')
    cfg['bbox_head'] = dict(
        type='QuantHead',
        head='FCOSHead',
        num_classes=3,
        in_channels=16,
        stacked_convs=1,
        feat_channels=16,
        norm_cfg=None,
    )
    cfg['kd_heads'].pop('cls')
    cfg['train_cfg'] = None
    model = MODELS.build(cfg)
    model.init_weights()
    batch = make_batch()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    loss = total(model, model(**batch, mode='loss'))
    assert torch.isfinite(loss) and type(model).__name__ == 'GoRFCOS'
