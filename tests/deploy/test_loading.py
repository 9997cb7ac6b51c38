import pytest
import torch
from mmdet.datasets.transforms import Resize
from mmengine.config import Config

from mmgor.deploy.description.metadata import size_divisor
from mmgor.deploy.loading import class_names, load_detector, padded_size
from mmgor.deploy.loading import test_size as configured_size
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, retinanet_cfg


def save(path, model, **meta):
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def test_weights_and_classes(tmp_path):
    cfg = Config(dict(model=retinanet_cfg()))
    model = MODELS.build(cfg.model)
    names = dict(classes=('a', 'b', 'c'))
    path = save(tmp_path / 'a.pth', model, dataset_meta=names)
    loaded = load_detector(cfg, path)
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert class_names(cfg, loaded) == ('a', 'b', 'c')


def test_training_only_keys_are_left_out(tmp_path):
    cfg = Config(dict(model=retinanet_cfg()))
    state = MODELS.build(cfg.model).state_dict()
    state['kd_heads.neck.weight'] = torch.zeros(1)
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    load_detector(cfg, tmp_path / 'a.pth')


def test_a_float_file_leaves_quantizers_uncalibrated(tmp_path):
    model = MODELS.build(retinanet_cfg())
    path = save(tmp_path / 'float.pth', model)
    student = load_detector(Config(dict(model=quantized_cfg())), path)
    assert not student.backbone.conv1.weight_quantizer.calibrated


def test_a_part_of_the_weights_is_refused(tmp_path):
    cfg = Config(dict(model=retinanet_cfg()))
    state = MODELS.build(cfg.model).state_dict()
    del state['neck.lateral_convs.0.conv.weight']
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'neck\.lateral_convs\.0\.conv'):
        load_detector(cfg, tmp_path / 'part.pth')


def test_bad_files(tmp_path):
    cfg = Config(dict(model=retinanet_cfg()))
    with pytest.raises(FileNotFoundError, match='checkpoint not found: gone'):
        load_detector(cfg, 'gone.pth')
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(ValueError, match='could not be read'):
        load_detector(cfg, tmp_path / 'text.pth')
    torch.save([torch.zeros(1)], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match=r'list\.pth holds a list; expected'):
        load_detector(cfg, tmp_path / 'list.pth')


def test_preprocessor_beside_the_model():
    """Where mmengine's Runner takes it from, too."""
    model = retinanet_cfg()
    preprocessor = dict(model.pop('data_preprocessor'), pad_size_divisor=64)
    cfg = Config(dict(model=model, data_preprocessor=preprocessor))
    loaded = load_detector(cfg, None)
    assert loaded.data_preprocessor.pad_size_divisor == 64
    assert loaded.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53]
    )
    assert size_divisor(cfg) == 64
    cfg.model.data_preprocessor = dict(preprocessor, pad_size_divisor=16)
    assert load_detector(cfg, None).data_preprocessor.pad_size_divisor == 16
    assert size_divisor(cfg) == 16


def test_class_names_from_the_config():
    cfg = Config(dict(model=retinanet_cfg()))
    model = load_detector(cfg, None)
    with pytest.raises(ValueError, match=r'names of 3 classes .* got none'):
        class_names(cfg, model)
    cfg.test_dataloader = dict(dataset=dict(type='CocoDataset'))
    with pytest.raises(ValueError, match=r"3 classes .* got \['person'"):
        class_names(cfg, model)
    inner = dict(type='CocoDataset', metainfo=dict(classes=('x', 'y', 'z')))
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', dataset=inner)
    assert class_names(cfg, model) == ('x', 'y', 'z')


def test_class_names_from_a_file(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('x\ny\nz\n')
    dataset = dict(type='CocoDataset', metainfo=dict(classes=str(path)))
    cfg = Config(dict(model=retinanet_cfg()))
    cfg.test_dataloader = dict(dataset=dataset)
    model = load_detector(cfg, None)
    assert class_names(cfg, model) == ('x', 'y', 'z')
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'class names not found: .*c'):
        class_names(cfg, model)


def test_size_of_the_test_pictures():
    resize = dict(type='Resize', scale=(1333, 800))
    dataset = dict(pipeline=[dict(type='LoadImageFromFile'), resize])
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    assert configured_size(cfg) == (800, 1333)
    other = dict(type='FixShapeResize', width=512, height=832)
    choice = dict(type='RandomChoice', transforms=[[resize], [other]])
    random = dict(type='RandomResize', scale=(2000, 2000))
    nested = dict(pipeline=[dict(type='LoadImageFromFile'), random, choice])
    both = dict(type='ConcatDataset', datasets=[nested, dict(pipeline=[])])
    cfg = Config(dict(test_dataloader=dict(dataset=both)))
    assert configured_size(cfg) == (832, 1333)
    for wrong in ((640,), (0, 640), 64.0, ('a', 'b')):
        one = dict(pipeline=[dict(type=Resize, scale=wrong)])
        cfg = Config(dict(test_dataloader=dict(dataset=one)))
        with pytest.raises(ValueError, match=r'expected \(width, height\) in'):
            configured_size(cfg)
    resize.update(type='mmdet.Resize', scale=640)
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    assert configured_size(cfg) == (640, 640)
    with pytest.raises(ValueError, match='--size 640 640'):
        configured_size(Config())


def test_sides_by_hand():
    assert padded_size((800, 1333), 32) == (800, 1344)
    assert padded_size((800, 1333), 1) == (800, 1333)
    model = dict(type='X')
    assert size_divisor(Config(dict(model=model))) == 1
    # Pyramids halve up to five times.
    assert size_divisor(Config(dict(model=model)), dynamic=True) == 32
    model['data_preprocessor'] = dict(pad_size_divisor=64)
    assert size_divisor(Config(dict(model=model)), dynamic=True) == 64
