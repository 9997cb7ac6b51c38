"""Teachers: where they live, what they return, and wrong settings."""

import copy

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import nn

from mmgor.distillation import Teachers
from mmgor.registry import MODELS
from tests.support.kd import CPU, one_teacher, outputs_of
from tests.support.models import make_batch, retinanet_cfg


def test_built_frozen_and_outside_the_module_tree(teacher_spec):
    teachers = one_teacher(**teacher_spec)
    teachers.build(CPU)
    model = teachers['big'].model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    holder = nn.Module()
    holder.teachers = teachers
    assert list(holder.parameters()) == []
    twin = copy.deepcopy(holder).teachers
    assert twin['big'].model is model


def test_outputs_equal_the_teachers_own(teacher_spec):
    teachers = one_teacher(**teacher_spec)
    teachers.build(CPU)
    model, batch = teachers['big'].model, make_batch()
    got = teachers['big'].forward_taps(
        batch['inputs'],
        model.data_preprocessor,
        batch['data_samples'],
        ['neck', 'bbox_head'],
    )
    with torch.no_grad():
        features = model.extract_feat(batch['inputs'])
        logits = model.bbox_head(features)[0]
    torch.testing.assert_close(got['neck'].output, features)
    torch.testing.assert_close(got['bbox_head'].output[0], logits)


def test_the_head_runs_only_when_tapped(teacher_spec, monkeypatch):
    teachers = one_teacher(**teacher_spec)
    teachers.build(CPU)
    model, batch = teachers['big'].model, make_batch()

    def never(*_):
        raise AssertionError('the head ran')

    monkeypatch.setattr(model.bbox_head, 'forward', never)
    teachers['big'].forward_taps(
        batch['inputs'],
        model.data_preprocessor,
        batch['data_samples'],
        ['neck'],
    )


def test_same_files_share_one_detector(teacher_spec):
    teachers = Teachers(dict(a=teacher_spec, b=teacher_spec))
    teachers.build(CPU)
    assert teachers['a'].model is teachers['b'].model


def test_apply_moves_the_teacher(teacher_spec):
    teachers = one_teacher(**teacher_spec)
    teachers.build(CPU)
    teachers._apply(lambda t: t.double() if t.is_floating_point() else t)
    assert next(teachers['big'].model.parameters()).dtype == torch.float64


def test_a_copy_leaves_shared_teachers_where_they_are(teacher_spec):
    teachers = one_teacher(**teacher_spec)
    teachers.build(CPU)
    twin = copy.deepcopy(teachers)
    twin._apply(lambda t: t.to('meta'))
    parameter = next(teachers['big'].model.parameters())
    assert (parameter.device, parameter.dtype) == (CPU, torch.float32)
    twin.build(CPU)  # from here on it has detectors of its own
    twin._apply(lambda t: t.to('meta'))
    assert twin['big'].model is not teachers['big'].model
    assert next(twin['big'].model.parameters()).is_meta


def test_the_batch_is_renormalised_for_the_teacher(tmp_path):
    cfg = retinanet_cfg()
    cfg['data_preprocessor'] = dict(type='DetDataPreprocessor', pad_value=114)
    path = tmp_path / 'plain.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    teachers = one_teacher(config=cfg, checkpoint=str(path))
    teachers.build(CPU)
    student_pp = DetDataPreprocessor(mean=[10.0] * 3, std=[2.0] * 3)
    batch = make_batch()
    got = teachers['big'].forward_taps(
        batch['inputs'], student_pp, batch['data_samples'], ['neck']
    )
    with torch.no_grad():
        want = teachers['big'].model.extract_feat(batch['inputs'] * 2 + 10)
    torch.testing.assert_close(got['neck'].output, want)


def test_stays_in_eval_mode_and_without_gradients(teacher_spec):
    teachers = one_teacher(**teacher_spec)
    teachers.build(CPU)
    model, batch = teachers['big'].model, make_batch()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    got = teachers['big'].forward_taps(
        batch['inputs'].requires_grad_(),
        model.data_preprocessor,
        batch['data_samples'],
        ['neck'],
    )
    assert not any(x.requires_grad for x in got['neck'].output)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize('spec', [None, 'a.py'])
def test_a_teacher_that_is_not_a_dict(spec):
    with pytest.raises(ValueError, match=r"'big' is .*; expected dict\("):
        Teachers(dict(big=spec))


def test_no_checkpoint():
    with pytest.raises(ValueError, match="teacher 'big' has no checkpoint"):
        one_teacher(config=retinanet_cfg(), checkpoint=None)


def test_wrong_keys():
    with pytest.raises(ValueError, match=r"keys \['ckpt', 'config'\]"):
        one_teacher(config=retinanet_cfg(), ckpt='x')


def test_unknown_name(teacher_spec):
    with pytest.raises(ValueError, match=r"unknown teacher 'x'.*\['big'\]"):
        one_teacher(**teacher_spec)['x']


def test_used_before_built(teacher_spec):
    with pytest.raises(RuntimeError, match='init_weights'):
        one_teacher(**teacher_spec)['big'].model  # noqa: B018


def built(teacher_spec, **options):
    teachers = one_teacher(**teacher_spec, **options)
    teachers.build(CPU)
    return teachers['big']


def test_detections_are_those_of_predict(teacher_spec):
    teacher, batch = built(teacher_spec), make_batch()
    want = teacher.model(**batch, mode='predict')
    got = outputs_of(teacher, 'detections', 'bbox_head')
    for a, b in zip(got['detections'].output, want, strict=True):
        torch.testing.assert_close(a.bboxes, b.pred_instances.bboxes)
        torch.testing.assert_close(a.scores, b.pred_instances.scores)
    logits = outputs_of(teacher, 'bbox_head')['bbox_head'].output[0]
    torch.testing.assert_close(got['bbox_head'].output[0], logits)


def test_a_border_around_images_is_taken_off_boxes(teacher_spec):
    """mmdet's heads do not know the border of MMYOLO's LetterResize."""
    teacher, batch = built(teacher_spec), make_batch()
    inputs, samples = batch['inputs'], batch['data_samples']
    preprocessor = teacher.model.data_preprocessor
    classes = list('abc')
    teacher.classes = tuple(classes)
    plain = teacher.predict(inputs, preprocessor, samples, classes)
    plain = [s.pred_instances.bboxes for s in plain]
    assert all(len(boxes) for boxes in plain)
    for sample in samples:
        sample.set_metainfo(
            dict(pad_param=(8, 8, 4, 4), scale_factor=(2.0, 2.0))
        )
    bordered = teacher.predict(inputs, preprocessor, samples, classes)
    for boxes, sample in zip(plain, bordered, strict=True):
        corner = boxes.new_tensor([4, 8, 4, 8])
        wanted = ((boxes - corner) / 2).clamp(min=0)
        torch.testing.assert_close(sample.pred_instances.bboxes, wanted)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_students_autocast_does_not_apply_to_the_teacher(
    teacher_spec, dtype
):
    teacher = built(teacher_spec, dtype=dtype)
    taps = ('detections', 'bbox_head', 'neck')
    want = outputs_of(teacher, *taps)
    with torch.autocast('cpu', torch.bfloat16):
        got = outputs_of(teacher, *taps)
    torch.testing.assert_close(got['neck'].output, want['neck'].output)
    torch.testing.assert_close(
        got['bbox_head'].output, want['bbox_head'].output
    )
    pairs = zip(got['detections'].output, want['detections'].output)
    for a, b in pairs:
        torch.testing.assert_close(a.bboxes, b.bboxes)


def test_size_is_that_of_the_padded_input(teacher_spec):
    teacher = built(teacher_spec)
    teacher.model.data_preprocessor.pad_size_divisor = 96
    assert outputs_of(teacher, 'neck')['neck'].size == (96, 96)


@pytest.mark.parametrize(
    'options, tolerance',
    [
        (dict(dtype='bfloat16'), 0.05),
        (dict(channels_last=True), 1e-4),
        (dict(offload=True), 0.0),
    ],
)
def test_cheaper_ways_to_run_give_the_same_outputs(
    teacher_spec, options, tolerance
):
    want = outputs_of(built(teacher_spec), 'neck')['neck'].output
    teacher = built(teacher_spec, **options)
    got = outputs_of(teacher, 'neck')['neck'].output
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_an_offloaded_teacher_stays_where_it_is(teacher_spec):
    teachers = one_teacher(**teacher_spec, offload=True)
    teachers.build(CPU)
    teachers._apply(lambda t: t.double() if t.is_floating_point() else t)
    parameter = next(teachers['big'].model.parameters())
    assert (parameter.device, parameter.dtype) == (CPU, torch.float32)


@pytest.mark.parametrize('teachers', [['big'], 'big', None])
def test_teachers_that_are_not_a_dict(teachers):
    with pytest.raises(
        TypeError, match=r'expected teachers=dict\(<name>=.*got'
    ):
        Teachers(teachers)


def test_no_teacher_and_unknown_dtype(teacher_spec):
    with pytest.raises(ValueError, match='at least one teacher, got none'):
        Teachers({})
    with pytest.raises(ValueError, match=r"teachers\.big\.dtype 'fp8'; exp"):
        one_teacher(**teacher_spec, dtype='fp8')
    with pytest.raises(ValueError, match="classes='person'; expected a list"):
        one_teacher(**teacher_spec, classes='person')
    with pytest.raises(ValueError, match="expected a name without 'loss'"):
        Teachers(dict(floss=teacher_spec))
    with pytest.raises(ValueError, match=r"a teacher is 0; .*{'teacher0': di"):
        Teachers({0: teacher_spec})
