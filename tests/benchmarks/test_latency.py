"""benchmarks/latency.py: inputs that would spoil the comparison."""

import sys

import pytest
from mmengine.config import Config

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.loading import load_detector
from tests.support.models import retinanet_cfg
from tests.support.training import loader, tiny_scenes

pytest.importorskip('nncf')
latency = pytest.importorskip('benchmarks.latency')


@pytest.mark.parametrize('names', [['float'], ['nncf'], ['W4A4', 'W4A4']])
def test_names_that_overwrite_files(names, monkeypatch, capsys):
    students = [('--student', name, 'c.py', 'c.pth') for name in names]
    argv = ['latency', 'c.py', 'c.pth', '--size', '64', '64']
    argv += [word for student in students for word in student]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit):
        latency.parse_args()
    assert 'names must differ and be none of' in capsys.readouterr().err


def test_names_that_differ(monkeypatch):
    argv = ['latency', 'c.py', 'c.pth', '--size', '64', '64']
    argv += ['--student', 'W4A4', 'c.py', 'c.pth']
    monkeypatch.setattr(sys, 'argv', argv)
    assert latency.parse_args().student == [['W4A4', 'c.py', 'c.pth']]


def test_images_are_padded_and_never_cut(tmp_path):
    scenes = tiny_scenes(tmp_path)
    model = retinanet_cfg()
    cfg = Config(dict(model=model, test_dataloader=loader(scenes, 'eval')))
    detector = load_detector(cfg, None)
    (image,) = latency.images(cfg, detector, [96, 64], 1, 'test')
    assert image.shape == (1, 3, 96, 64)
    assert (image[:, :, 64:] == 0).all()
    with pytest.raises(ValueError, match=r'\(64, 64\) .* than \(96, 32\)'):
        list(latency.images(cfg, detector, [96, 32], 1, 'test'))


def test_a_grey_student_is_exported(tmp_path):
    cfg = Config(dict(model=retinanet_cfg()))
    cfg.model.backbone.in_channels = 1
    cfg.model.data_preprocessor.update(
        mean=[120.0], std=[60.0], bgr_to_rgb=False
    )
    data = dict(metainfo=dict(classes=('a', 'b', 'c')))
    cfg.test_dataloader = dict(dataset=dict(type='CocoDataset', **data))
    model = load_detector(cfg, None)
    latency.export_float(cfg, model, tmp_path / 'grey.onnx', [64, 64])
    said = read_metadata(tmp_path / 'grey.onnx')
    assert said['input']['channels'] == 1
