"""Hostile metadata is refused; nothing in it is run."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmgor.deploy.description.allowed import check_buildable
from mmgor.deploy.description.checksum import append_onnx_checksum
from mmgor.deploy.description.metadata import KEY, make_metadata
from mmgor.deploy.description.metadata_check import check_metadata
from mmgor.deploy.description.metadata_reader import (
    exported_config,
    read_metadata,
)
from mmgor.deploy.export.saving import save_openvino
from mmgor.deploy.runtime.detector import Detector, detector_configs
from mmgor.deploy.runtime.runtime_config import runtime_model
from tests.support.hostile_metadata import DELETED, VALUES, Hostile, places

MODEL = ('config', 'model')
PIPELINE = ('config', 'test_dataloader', 'dataset', 'pipeline')
NEVER_BUILT = [('backbone',), ('neck',)]
HEAD = (*MODEL, 'bbox_head')
POPEN = dict(type='subprocess.Popen', args=['touch', 'ran'])


@pytest.fixture
def hostile(exported, monkeypatch, tmp_path):
    """An exported file in a folder with modules that it could name.

    None of them may be imported.
    """
    for name in ('evil', 'FocalLoss', 'Resize'):
        (tmp_path / name).mkdir()
        for module in ('__init__', 'registry', 'Resize'):
            text = "open('ran', 'w').close()"
            (tmp_path / name / f'{module}.py').write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Hostile(exported.onnx, monkeypatch)
    assert not (tmp_path / 'ran').exists()


def test_refused_entries(hostile):
    step = (*PIPELINE, 1)
    wide = hostile.metadata['config']['model']['bbox_head']
    wide = dict(wide, feat_channels=60000, stacked_convs=2)
    for place, value, entry in (
        ((*MODEL, 'data_preprocessor'), POPEN, 'data_preprocessor.type'),
        ((*HEAD, 'head'), 'subprocess.Popen', 'bbox_head.type'),
        ((*HEAD, 'head'), 'QuantHead', 'bbox_head.type'),
        ((*HEAD, 'head'), 'ResNet', 'bbox_head.type'),
        ((*HEAD, 'loss_cls'), POPEN, 'bbox_head.loss_cls.type'),
        ((*HEAD, 'loss_cls', 'type'), 'mmdet.Popen', 'loss_cls.type'),
        ((*HEAD, 'loss_cls', 'type'), ['FocalLoss'], 'loss_cls.type'),
        ((*HEAD, 'loss_cls', 'type'), 'AnchorGenerator', 'loss_cls.type'),
        ((*HEAD, 'loss_cls', 'more'), POPEN, 'loss_cls.more.type'),
        ((*HEAD, 'loss_new'), [[POPEN]], 'bbox_head.loss_new.type'),
        ((*HEAD, 'bbox_coder'), POPEN, 'bbox_coder.type'),
        ((*HEAD, 'bbox_coder', 'type'), 'FocalLoss', 'bbox_coder.type'),
        ((*HEAD, 'anchor_generator'), POPEN, 'anchor_generator.type'),
        ((*HEAD, 'norm_cfg'), POPEN, 'norm_cfg.type'),
        ((*HEAD, 'norm_cfg'), dict(type='QuantBackbone'), 'norm_cfg.type'),
        ((*HEAD, 'act_cfg'), dict(type='evil.ReLU'), 'act_cfg.type'),
        ((*HEAD, '_scope_'), 'evil', 'bbox_head._scope_'),
        ((*HEAD, 'loss_cls', '_delete_'), True, 'loss_cls._delete_'),
        ((*HEAD, 'loss_cls', '_base_'), 'evil.py', 'loss_cls._base_'),
        ((*HEAD, 'pretrained_from'), POPEN, 'pretrained_from.type'),
        ((*HEAD, 'loss_cls', 'checkpoint'), 'x', 'loss_cls.checkpoint'),
        ((*MODEL, 'test_cfg', 'nms', 'type'), 'open("ran")', 'nms.type'),
        ((*MODEL, 'test_cfg', 'nms', 'type'), 'mmcv.nms', 'nms.type'),
        (step, POPEN, 'pipeline.type'),
        ((*step, 'type'), 'evil.Resize', 'pipeline.type'),
        ((*step, 'type'), 'LoadImageFromFile', 'pipeline.type'),
        ((*step, 'custom_imports'), ['evil'], 'pipeline.custom_imports'),
        ((*step, 'more'), dict(type='Resize'), 'pipeline.more.type'),
        ((*PIPELINE, 0, 'backend_args'), dict(a=1), 'pipeline.backend_args'),
        ((*PIPELINE, 0, 'file_client_args'), {}, 'file_client_args'),
        ((*step, 'scale'), [10**6, 10**6], 'pipeline.scale'),
        ((*step, 'scale'), [float('inf'), 9], 'pipeline.scale'),
        (('config', 'default_scope'), 'evil', 'default_scope'),
        (('config', 'custom_imports'), ['evil'], 'custom_imports'),
        (('config', 'filename'), 'evil.py', 'filename'),
        ((*HEAD, 'feat_channels'), 10**9, 'feat_channels'),
        ((*HEAD, 'stacked_convs'), 999, 'stacked_convs is 999'),
        (HEAD, wide, 'weights and 9 priors per location'),
        ((*HEAD, 'anchor_generator', 'scales_per_octave'), 999, 'priors per'),
        ((*HEAD, 'num_classes'), 3, 'bbox_head.num_classes is 3'),
        (('classes',), ['\x1b[2J', *'abcd'], 'control characters'),
        (('classes',), ['\ud800', *'abcd'], 'control characters'),
        (('input', 'divisor'), 0, 'divisor is 0; expected 1 to 4096'),
        (('input', 'height'), 10**6, 'height is 1000000'),
        (('input', 'name'), 'x', 'metadata says'),
        (('input', 'height'), 32, 'metadata says'),
        (('outputs', 0), ['nope'], 'metadata says'),
        (('outputs',), [], 'outputs is'),
        (('outputs',), json.loads('[' * 500 + ']' * 500), 'up to 64 deep'),
    ):
        hostile.say(hostile.changed(place, value))
        try:
            Detector(hostile.path)
            message = ''
        except ValueError as error:
            message = str(error)
        assert entry in message, (place, value)
        assert str(hostile.path) in message
    assert not {'evil', 'FocalLoss', 'Resize'} & set(sys.modules)


def test_every_entry_may_be_wrong(hostile, exported):
    """Each entry is deleted, and replaced by an odd value: the file is used,
    or refused by name."""
    image = next((exported.scenes / 'images').iterdir())
    used = 0
    for i, place in enumerate(places(hostile.metadata)):
        if place[0] == 'quantization' or place[2:3] in NEVER_BUILT:
            continue
        for value in (DELETED, VALUES[i % len(VALUES)]):
            hostile.say(hostile.changed(place, value))
            try:
                Detector(hostile.path, threads=1, score_thr=0)(image)
                used += 1
            except ValueError as error:
                assert str(hostile.path) in str(error), place
    assert used > 20


def test_every_entry_has_to_be_there(hostile):
    """There is one format: a reader never has to guess."""
    entries = [(key,) for key in hostile.metadata]
    entries += [('input', key) for key in hostile.metadata['input']]
    assert len(entries) == 14 + 6
    for place in entries:
        hostile.say(hostile.changed(place, DELETED))
        with pytest.raises(ValueError, match=rf'{place[-1]}.*export it again'):
            read_metadata(hostile.path)


def test_a_pipeline_that_fails_on_images(hostile, exported):
    place = ('config', 'test_dataloader', 'dataset', 'pipeline', 2, 'scale')
    hostile.say(hostile.changed(place, 'large'))
    image = next((exported.scenes / 'images').iterdir())
    with pytest.raises(ValueError, match=f'^{hostile.path} can not be used'):
        Detector(hostile.path, threads=1)(image)


@pytest.mark.parametrize(
    'text', ['[' * 10**5, '[]', 'null', '1e999', '{"format": NaN}', '\ud800']
)
def test_texts_that_are_not_metadata(text, hostile):
    hostile.say(text)
    with pytest.raises(ValueError, match='has damaged or outdated'):
        read_metadata(hostile.path)


def test_a_config_is_compared_without_building_the_files(hostile, exported):
    """tools/test.py builds only the config that it is given."""
    hostile.say(hostile.changed((*HEAD, 'loss_cls'), POPEN))
    with pytest.raises(ValueError, match=r"loss_cls\.type is 'FocalLoss' in"):
        runtime_model(exported.cfg(), hostile.path)
    hostile.say(hostile.changed(HEAD, [3]))
    with pytest.raises(ValueError, match=r'student\.onnx .*bbox_head is \[3'):
        runtime_model(exported.cfg(), hostile.path)


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_a_valid_checksum_makes_no_file_safe(suffix, exported, tmp_path):
    """Anyone can compute a checksum."""
    metadata = read_metadata(exported.onnx)
    metadata['config']['model']['bbox_head']['bbox_coder'] = dict(
        POPEN, args=['touch', str(tmp_path / 'ran')]
    )
    path = tmp_path / f'evil{suffix}'
    if suffix == '.onnx':
        model = onnx.load(exported.onnx)
        onnx.helper.set_model_props(model, {KEY: json.dumps(metadata)})
        onnx.save(model, path)
        append_onnx_checksum(path)
    else:
        openvino = pytest.importorskip('openvino')
        model = openvino.Core().read_model(exported.xml)
        save_openvino(model, json.dumps(metadata), path)
    assert exported_config(read_metadata(path)).model.bbox_head.bbox_coder
    with pytest.raises(ValueError, match=r'bbox_coder\.type is .subproc'):
        Detector(path)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('inside', ['initializer', 'attribute'])
def test_weights_in_other_files(inside, exported, tmp_path):
    (tmp_path / 'secret').write_bytes(b'0' * 64)
    model = onnx.load(exported.onnx)
    del model.metadata_props[-1]
    tensor = model.graph.initializer[0]
    if inside == 'attribute':
        node = model.graph.node.add(op_type='Constant', output=['secret'])
        node.attribute.add(name='value', type=onnx.AttributeProto.TENSOR)
        tensor = node.attribute[0].t
        tensor.data_type, tensor.name = onnx.TensorProto.FLOAT, 'secret'
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='../secret')
    path = tmp_path / 'x.onnx'
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r'x\.onnx has weights in other fil'):
        read_metadata(path)


def test_more_labels_than_names(exported, monkeypatch):
    """The outputs of the graph are checked too."""
    detector = Detector(exported.onnx, threads=1, score_thr=0.0)
    detector.classes = detector.classes[:1]
    images = sorted((exported.scenes / 'images').iterdir())
    with pytest.raises(ValueError, match=r'student\.onnx .*label'):
        detector(images)


def test_names_of_written_new_style_configs(hostile):
    """A class is written as its path, which is allowed if it is registered."""
    import mmdet.models.dense_heads.retina_head as module

    for name in (
        'mmdet.RetinaHead',
        f'{module.__name__}.RetinaHead',
        'mmdet.models.RetinaHead',
    ):
        hostile.say(hostile.changed((*HEAD, 'head'), name))
        detector = Detector(hostile.path, threads=1)
        assert type(detector._model.bbox_head) is module.RetinaHead
    assert torch.get_default_device().type == 'cpu'


CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / 'gor'
# They have no single-stage dense head and are not exported.
OTHERS = ('deformable-detr', 'faster-rcnn')


@pytest.mark.parametrize(
    'config',
    [
        path
        for path in sorted(CONFIGS.glob('*.py'))
        if not path.name.startswith(OTHERS)
    ],
    ids=lambda path: path.stem,
)
def test_shipped_configs_are_allowed(config, monkeypatch):
    monkeypatch.setattr(
        'mmgor.deploy.description.metadata.weights_checksum',
        lambda _: '0' * 64,
    )
    cfg = Config.fromfile(config)
    names = [f'class {i}' for i in range(cfg.model.bbox_head.num_classes)]
    shape = (1, 64, 64)
    metadata = make_metadata(cfg, nn.Module(), names, shape, 32, ['output'])
    said = json.loads(json.dumps(metadata))
    check_metadata(said)
    model, _ = detector_configs(said, 'student.onnx')
    check_buildable(model)
