import copy
import logging

import pytest
import torch
from conftest import make_batch, retinanet_cfg
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.config import Config
from torch import nn

from mmgor.distillation import Teachers
from mmgor.distillation.teacher_files import (
    find_classes,
    model_config,
    read_config,
)
from mmgor.registry import MODELS

CPU = torch.device('cpu')


def one(**spec):
    return Teachers(dict(big=spec))


def test_built_frozen_and_outside_the_module_tree(teacher_spec):
    teachers = one(**teacher_spec)
    teachers.build(CPU)
    model = teachers['big'].model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    holder = nn.Module()
    holder.teachers = teachers
    assert list(holder.parameters()) == []
    assert copy.deepcopy(holder).teachers is teachers


def test_outputs_equal_the_teachers_own(teacher_spec):
    teachers = one(**teacher_spec)
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
    teachers = one(**teacher_spec)
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
    teachers = one(**teacher_spec)
    teachers.build(CPU)
    teachers._apply(lambda t: t.double() if t.is_floating_point() else t)
    assert next(teachers['big'].model.parameters()).dtype == torch.float64


def test_classes_come_from_the_checkpoint(tmp_path):
    model = MODELS.build(retinanet_cfg())
    path = tmp_path / 'named.pth'
    meta = dict(dataset_meta=dict(classes=['a', 'b', 'c']))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    teachers = one(config=retinanet_cfg(), checkpoint=str(path))
    teachers.build(CPU)
    assert teachers['big'].classes == ('a', 'b', 'c')


def test_sync_batch_norm_is_undone(tmp_path):
    cfg = retinanet_cfg()
    path = tmp_path / 'x.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    cfg['backbone']['norm_cfg'] = dict(type='SyncBN', requires_grad=True)
    teachers = one(config=cfg, checkpoint=str(path))
    teachers.build(CPU)
    kinds = {type(m).__name__ for m in teachers['big'].model.modules()}
    assert 'SyncBatchNorm' not in kinds


def test_students_pixels_reach_the_teacher_its_own_way(tmp_path):
    cfg = retinanet_cfg()
    cfg['data_preprocessor'] = dict(type='DetDataPreprocessor', pad_value=114)
    path = tmp_path / 'plain.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    teachers = one(config=cfg, checkpoint=str(path))
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
    teachers = one(**teacher_spec)
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


def test_module_prefix_of_a_ddp_file_is_stripped(tmp_path):
    state = MODELS.build(retinanet_cfg()).state_dict()
    path = tmp_path / 'ddp.pth'
    torch.save({f'module.{k}': v for k, v in state.items()}, path)
    teachers = one(config=retinanet_cfg(), checkpoint=str(path))
    teachers.build(CPU)
    for key, value in teachers['big'].model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_preprocessor_outside_the_model_is_used(tmp_path):
    model = retinanet_cfg()
    preprocessor = model.pop('data_preprocessor')
    path = tmp_path / 'config.py'
    Config(dict(model=model, data_preprocessor=preprocessor)).dump(path)
    cfg = model_config('big', read_config('big', str(path)))
    assert cfg.data_preprocessor == preprocessor


def test_model_zoo_names_are_found_and_download_nothing():
    name = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    cfg = model_config('big', read_config('big', name))
    assert cfg.type == 'RetinaNet'
    assert cfg.backbone.init_cfg is None


@pytest.mark.parametrize('config', [None, 3])
def test_config_that_is_none(config):
    with pytest.raises(ValueError, match=rf'is {config}; expected a path'):
        one(config=config, checkpoint='x.pth').build(CPU)


def test_config_without_a_model(tmp_path):
    path = tmp_path / 'empty.py'
    path.write_text('optimizer = 1\n')
    for config in (str(path), dict(optimizer=1), dict(model=None)):
        with pytest.raises(ValueError, match="'big' has no model, only the"):
            one(config=config, checkpoint='x.pth').build(CPU)


@pytest.mark.parametrize('spec', [None, 'a.py'])
def test_a_teacher_that_is_no_dict(spec):
    with pytest.raises(ValueError, match=r"'big' is .*; expected dict\("):
        Teachers(dict(big=spec))


def test_no_checkpoint():
    with pytest.raises(ValueError, match="teacher 'big' has no checkpoint"):
        one(config=retinanet_cfg(), checkpoint=None)


def test_wrong_keys():
    with pytest.raises(ValueError, match=r"keys \['ckpt', 'config'\]"):
        one(config=retinanet_cfg(), ckpt='x')


def test_unknown_name(teacher_spec):
    with pytest.raises(ValueError, match=r"unknown teacher 'x'.*\['big'\]"):
        one(**teacher_spec)['x']


def test_used_before_built(teacher_spec):
    with pytest.raises(RuntimeError, match='init_weights'):
        one(**teacher_spec)['big'].model  # noqa: B018


@pytest.mark.parametrize(
    'spec, error, message',
    [
        (
            dict(config='no/such.py', checkpoint='x.pth'),
            FileNotFoundError,
            'config of teacher .* not found',
        ),
        (
            dict(config=retinanet_cfg(), checkpoint='no/such.pth'),
            FileNotFoundError,
            'checkpoint of teacher .* not found',
        ),
    ],
)
def test_missing_files(spec, error, message):
    with pytest.raises(error, match=message):
        one(**spec).build(CPU)


@pytest.mark.parametrize('content', [b'', b'not a checkpoint'])
def test_unreadable_checkpoint(tmp_path, content):
    path = tmp_path / 'bad.pth'
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match='could not be read'):
        one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


@pytest.mark.parametrize('state', [[1], None])
def test_checkpoint_without_a_state_dict(tmp_path, state):
    path = tmp_path / 'odd.pth'
    torch.save(dict(state_dict=state), path)
    with pytest.raises(RuntimeError, match='expected a dict of tensors'):
        one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_checkpoint_may_have_no_meta(tmp_path):
    state = MODELS.build(retinanet_cfg()).state_dict()
    path = tmp_path / 'bare.pth'
    torch.save(dict(state_dict=state, meta=None), path)
    teachers = one(config=retinanet_cfg(), checkpoint=str(path))
    teachers.build(CPU)
    assert teachers['big'].classes is None


def test_unreadable_config(tmp_path):
    path = tmp_path / 'bad.py'
    path.write_text('model = dict(')
    with pytest.raises(RuntimeError, match=r'config of .* could not be read'):
        one(config=str(path), checkpoint='x.pth').build(CPU)


def test_missing_keys_are_listed(tmp_path):
    state = MODELS.build(retinanet_cfg()).state_dict()
    state.pop('backbone.conv1.weight')
    path = tmp_path / 'part.pth'
    torch.save(dict(state_dict=state), path)
    with pytest.raises(RuntimeError, match=r'lacks 1 keys.*conv1\.weight'):
        one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_a_deeper_checkpoint_is_an_error(tmp_path):
    deeper = retinanet_cfg()
    deeper.backbone.depth = 34
    path = tmp_path / 'r34.pth'
    torch.save(MODELS.build(deeper).state_dict(), path)
    message = r'has \d+ keys that its config lacks.*backbone\.layer1\.2\.'
    with pytest.raises(RuntimeError, match=message):
        one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_keys_of_no_part_are_told_and_those_of_kd_are_not(
    tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(
        'mmgor.distillation.teacher_files.print_log',
        lambda text, **kwargs: told.append((text, kwargs['level'])),
    )
    state = MODELS.build(retinanet_cfg()).state_dict()
    state['kd_heads.neck.connectors.levels.0.weight'] = torch.zeros(1)
    state['gor_weighting.theta_kd'] = torch.zeros(1)
    path = tmp_path / 'student.pth'
    torch.save(state, path)
    one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)
    assert told == []
    state['data_preprocessor.mean'] = torch.zeros(3, 1, 1)
    torch.save(state, path)
    one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)
    ((text, level),) = told
    assert "1 keys of the checkpoint are unused, e.g. ['data_pre" in text
    assert level == logging.WARNING


def test_other_shapes_are_an_error(tmp_path):
    path = tmp_path / 'wide.pth'
    torch.save(MODELS.build(retinanet_cfg(channels=12)).state_dict(), path)
    with pytest.raises(RuntimeError, match='does not fit its config'):
        one(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_classes_of_the_config_where_the_checkpoint_has_none():
    coco = read_config('big', 'mmdet::yolox/yolox_nano_8xb8-300e_coco.py')
    names = find_classes({}, coco)
    assert len(names) == 80 and names[0] == 'person'
    dataset = dict(type='CocoDataset', metainfo=dict(classes=['a']))
    wrapped = dict(type='RepeatDataset', dataset=dataset)
    config = dict(val_dataloader=None, train_dataloader=dict(dataset=wrapped))
    assert find_classes({}, config) == ('a',)
    assert find_classes(dict(CLASSES=['b']), config) == ('b',)
    assert find_classes({}, dict(model=dict(type='RetinaNet'))) is None


def built(teacher_spec, **options):
    teachers = one(**teacher_spec, **options)
    teachers.build(CPU)
    return teachers['big']


def answer(teacher, *names):
    batch = make_batch()
    return teacher.forward_taps(
        batch['inputs'],
        teacher.model.data_preprocessor,
        batch['data_samples'],
        names,
    )


def test_detections_are_those_of_predict(teacher_spec):
    teacher, batch = built(teacher_spec), make_batch()
    want = teacher.model(**batch, mode='predict')
    got = answer(teacher, 'detections', 'bbox_head')
    for a, b in zip(got['detections'].output, want, strict=True):
        torch.testing.assert_close(a.bboxes, b.pred_instances.bboxes)
        torch.testing.assert_close(a.scores, b.pred_instances.scores)
    logits = answer(teacher, 'bbox_head')['bbox_head'].output[0]
    torch.testing.assert_close(got['bbox_head'].output[0], logits)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_students_autocast_is_not_the_teachers(teacher_spec, dtype):
    teacher = built(teacher_spec, dtype=dtype)
    taps = ('detections', 'bbox_head', 'neck')
    want = answer(teacher, *taps)
    with torch.autocast('cpu', torch.bfloat16):
        got = answer(teacher, *taps)
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
    assert answer(teacher, 'neck')['neck'].size == (96, 96)


@pytest.mark.parametrize(
    'options, tolerance',
    [
        (dict(dtype='bfloat16'), 0.05),
        (dict(channels_last=True), 1e-4),
        (dict(offload=True), 0.0),
    ],
)
def test_cheaper_ways_to_run_give_the_same(teacher_spec, options, tolerance):
    want = answer(built(teacher_spec), 'neck')['neck'].output
    teacher = built(teacher_spec, **options)
    got = answer(teacher, 'neck')['neck'].output
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_an_offloaded_teacher_stays_where_it_is(teacher_spec):
    teachers = one(**teacher_spec, offload=True)
    teachers.build(torch.device('meta'))
    teachers._apply(lambda t: t.double() if t.is_floating_point() else t)
    parameter = next(teachers['big'].model.parameters())
    assert (parameter.device, parameter.dtype) == (CPU, torch.float32)


def test_no_teacher_and_unknown_dtype(teacher_spec):
    with pytest.raises(ValueError, match='at least one teacher, got none'):
        Teachers({})
    with pytest.raises(ValueError, match="dtype='fp8'; expected one of"):
        one(**teacher_spec, dtype='fp8')
    with pytest.raises(ValueError, match="classes='person'; expected a list"):
        one(**teacher_spec, classes='person')
    with pytest.raises(ValueError, match="expected a name without 'loss'"):
        Teachers(dict(floss=teacher_spec))
