"""A teacher's config and checkpoint are read, or refused with its name."""

import logging

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config

from mmgor.distillation.teachers.loading import (
    find_classes,
    model_config,
    read_config,
)
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.kd import CPU, one_teacher
from tests.support.models import make_batch, quantized_cfg, retinanet_cfg


def test_classes_come_from_the_checkpoint(tmp_path):
    model = MODELS.build(retinanet_cfg())
    path = tmp_path / 'named.pth'
    meta = dict(dataset_meta=dict(classes=['a', 'b', 'c']))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    teachers = one_teacher(config=retinanet_cfg(), checkpoint=str(path))
    teachers.build(CPU)
    assert teachers['big'].classes == ('a', 'b', 'c')


@pytest.mark.parametrize('kind', ['SyncBN', 'MMSyncBN'])
def test_sync_batch_norm_is_undone(tmp_path, kind):
    cfg = retinanet_cfg()
    path = tmp_path / 'x.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    cfg['backbone']['norm_cfg'] = dict(type=kind, requires_grad=True)
    teachers = one_teacher(config=cfg, checkpoint=str(path))
    teachers.build(CPU)
    kinds = {type(m).__name__ for m in teachers['big'].model.modules()}
    assert 'SyncBatchNorm' not in kinds


def test_module_prefix_of_a_ddp_file_is_stripped(tmp_path):
    state = MODELS.build(retinanet_cfg()).state_dict()
    path = tmp_path / 'ddp.pth'
    torch.save({f'module.{k}': v for k, v in state.items()}, path)
    teachers = one_teacher(config=retinanet_cfg(), checkpoint=str(path))
    teachers.build(CPU)
    head = teachers['big'].model.bbox_head  # without batch norm to fold
    for key, value in head.state_dict(prefix='bbox_head.').items():
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
    assert 'init_cfg' not in cfg.backbone


@pytest.mark.parametrize('config', [None, 3])
def test_values_that_are_not_a_config(config):
    with pytest.raises(ValueError, match=rf'is {config}; expected a path'):
        one_teacher(config=config, checkpoint='x.pth').build(CPU)


def test_config_without_a_model(tmp_path):
    path = tmp_path / 'empty.py'
    path.write_text('optimizer = 1\n')
    for config in (str(path), dict(optimizer=1), dict(model=None)):
        with pytest.raises(ValueError, match="'big' has no model, only the"):
            one_teacher(config=config, checkpoint='x.pth').build(CPU)


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
        one_teacher(**spec).build(CPU)


@pytest.mark.parametrize('content', [b'', b'not a checkpoint'])
def test_unreadable_checkpoint(tmp_path, content):
    path = tmp_path / 'bad.pth'
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match='could not be read'):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


@pytest.mark.parametrize('state', [[1], None])
def test_checkpoint_without_a_state_dict(tmp_path, state):
    path = tmp_path / 'odd.pth'
    torch.save(dict(state_dict=state), path)
    with pytest.raises(RuntimeError, match='expected a dict of tensors'):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_checkpoint_may_have_no_meta(tmp_path):
    state = MODELS.build(retinanet_cfg()).state_dict()
    path = tmp_path / 'bare.pth'
    torch.save(dict(state_dict=state, meta=None), path)
    teachers = one_teacher(config=retinanet_cfg(), checkpoint=str(path))
    teachers.build(CPU)
    assert teachers['big'].classes is None


def test_unreadable_config(tmp_path):
    path = tmp_path / 'bad.py'
    path.write_text('model = dict(')
    with pytest.raises(RuntimeError, match=r'config of .* could not be read'):
        one_teacher(config=str(path), checkpoint='x.pth').build(CPU)


def test_missing_keys_are_listed(tmp_path):
    state = MODELS.build(retinanet_cfg()).state_dict()
    state.pop('backbone.conv1.weight')
    path = tmp_path / 'part.pth'
    torch.save(dict(state_dict=state), path)
    with pytest.raises(RuntimeError, match=r'lacks 1 keys.*conv1\.weight'):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_a_deeper_checkpoint_is_an_error(tmp_path):
    deeper = retinanet_cfg()
    deeper.backbone.depth = 34
    path = tmp_path / 'r34.pth'
    torch.save(MODELS.build(deeper).state_dict(), path)
    message = r'has \d+ keys that its config lacks.*backbone\.layer1\.2\.'
    with pytest.raises(RuntimeError, match=message):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_unused_keys_are_logged_except_those_of_kd(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        'mmgor.io.checkpoint_loader.print_log',
        lambda text, **kwargs: told.append((text, kwargs['level'])),
    )
    state = MODELS.build(retinanet_cfg()).state_dict()
    state['kd_heads.neck.connectors.levels.0.weight'] = torch.zeros(1)
    state['gor_weighting.theta_kd'] = torch.zeros(1)
    path = tmp_path / 'student.pth'
    torch.save(state, path)
    one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)
    assert told == []
    state['data_preprocessor.mean'] = torch.zeros(3, 1, 1)
    torch.save(state, path)
    one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)
    ((text, level),) = told
    assert "1 keys of the checkpoint are unused, e.g. ['data_pre" in text
    assert level == logging.WARNING


def test_other_shapes_are_an_error(tmp_path):
    path = tmp_path / 'wide.pth'
    torch.save(MODELS.build(retinanet_cfg(channels=12)).state_dict(), path)
    with pytest.raises(RuntimeError, match='does not fit its config'):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_classes_of_the_config_where_the_checkpoint_has_none():
    coco = read_config('big', 'mmdet::yolox/yolox_nano_8xb8-300e_coco.py')
    names = find_classes('big', {}, coco)
    assert len(names) == 80 and names[0] == 'person'
    dataset = dict(type='CocoDataset', metainfo=dict(classes=['a']))
    wrapped = dict(type='RepeatDataset', dataset=dataset)
    config = dict(val_dataloader=None, train_dataloader=dict(dataset=wrapped))
    assert find_classes('big', {}, config) == ('a',)
    assert find_classes('big', dict(CLASSES=['b']), config) == ('b',)
    none = dict(model=dict(type='RetinaNet'))
    assert find_classes('big', {}, none) is None


def test_classes_of_a_dataset_given_as_a_python_class():
    dataset = dict(type=CocoDataset)
    config = dict(val_dataloader=dict(dataset=dataset))
    assert find_classes('big', {}, config)[0] == 'person'


def test_classes_in_a_file(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('cat\ndog\n')
    dataset = dict(type='CocoDataset', metainfo=dict(classes=str(path)))
    joined = dict(type='ConcatDataset', datasets=[dataset, dataset])
    config = dict(val_dataloader=dict(dataset=joined))
    assert find_classes('big', {}, config) == ('cat', 'dog')
    path.unlink()
    message = r'class names not found: .* or teachers=dict\(big=dict\(classes='
    with pytest.raises(FileNotFoundError, match=message):
        find_classes('big', {}, config)


def test_a_config_with_classes_in_it():
    """A new-style config has the class RetinaNet in place of its name."""
    config = dict(model=retinanet_cfg())
    config['model']['type'] = MODELS.get('RetinaNet')
    assert MODELS.build(model_config('big', config)).bbox_head is not None


def test_a_string_is_not_a_list_of_classes():
    message = r"'big' has the string 'person' .* classes=\('person',\)\."
    wrong = dict(classes=('person'))
    dataset = dict(type='CocoDataset', metainfo=wrong)
    config = dict(val_dataloader=dict(dataset=dataset))
    for meta in ({}, dict(dataset_meta=wrong)):
        with pytest.raises(ValueError, match=message):
            find_classes('big', meta, config)


@pytest.mark.parametrize('meta', ['x', [1], dict(dataset_meta=[1])])
def test_odd_meta_matters_where_classes_are_not_given(tmp_path, meta):
    path = tmp_path / 'odd.pth'
    state = MODELS.build(retinanet_cfg()).state_dict()
    torch.save(dict(state_dict=state, meta=meta), path)
    spec = dict(config=retinanet_cfg(), checkpoint=str(path))
    with pytest.raises(ValueError, match=r"'big' has the meta .*expected dic"):
        one_teacher(**spec).build(CPU)
    teachers = one_teacher(**spec, classes=['a', 'b', 'c'])
    teachers.build(CPU)
    assert teachers['big'].classes == ('a', 'b', 'c')


def test_weights_without_names(tmp_path):
    path = tmp_path / 'odd.pth'
    torch.save({0: torch.ones(1)}, path)
    with pytest.raises(RuntimeError, match=r'has the keys \[0\], expected na'):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('key', ['conv1.weight', 'bn1.running_var'])
def test_weights_that_are_not_finite(tmp_path, key, value):
    state = MODELS.build(retinanet_cfg()).state_dict()
    state[f'backbone.{key}'][0] = value
    path = tmp_path / 'diverged.pth'
    torch.save(state, path)
    message = rf"'big' .*diverged\.pth\) has NaN or infin.*'backbone\.{key}'"
    with pytest.raises(ValueError, match=message):
        one_teacher(config=retinanet_cfg(), checkpoint=str(path)).build(CPU)


def test_a_quantized_teacher_needs_its_ranges(tmp_path):
    path = tmp_path / 'float.pth'
    torch.save(MODELS.build(retinanet_cfg()).state_dict(), path)
    message = (
        r"teacher 'big' .*float\.pth\) has no ranges for \d+ quantized "
        r"layers, e\.g\. \['backbone\.conv1', .* quantized training"
    )
    with pytest.raises(ValueError, match=message):
        one_teacher(config=quantized_cfg(), checkpoint=str(path)).build(CPU)
    model = MODELS.build(quantized_cfg())
    calibrate(model, [make_batch()], lambda b: model(**b, mode='tensor'))
    torch.save(model.state_dict(), path)
    one_teacher(config=quantized_cfg(), checkpoint=str(path)).build(CPU)
