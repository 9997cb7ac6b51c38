import pytest
import torch
from mmdet.models import RetinaNet
from mmengine.config import Config

from mmgor.deploy.input_size import size_divisor
from mmgor.deploy.loading import class_names, load_detector
from mmgor.quantization import quantized_layers
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


def test_the_prefix_of_a_ddp_file_is_stripped(tmp_path):
    cfg = Config(dict(model=retinanet_cfg()))
    state = MODELS.build(cfg.model).state_dict()
    wrapped = {f'module.{key}': value for key, value in state.items()}
    torch.save(dict(state_dict=wrapped), tmp_path / 'ddp.pth')
    loaded = load_detector(cfg, tmp_path / 'ddp.pth')
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, state[key]), key


NEW_STYLE = """
from mmdet.datasets import CocoDataset
from mmdet.models import FPN, ResNet, RetinaHead, RetinaNet
from mmgor.quantization import QuantBackbone
from torch.nn import BatchNorm2d

model = dict(
    type=RetinaNet,
    backbone=dict(
        type=QuantBackbone,
        backbone=ResNet,
        quant=dict(w_bits=4, a_bits=4),
        depth=18,
        norm_cfg=dict(type=BatchNorm2d),
    ),
    neck=dict(type=FPN, in_channels=[64, 128, 256, 512], out_channels=8,
              num_outs=5),
    bbox_head=dict(type=RetinaHead, num_classes=2, in_channels=8,
                   feat_channels=8, stacked_convs=1),
)
test_dataloader = dict(dataset=dict(
    type=CocoDataset, metainfo=dict(classes=('a', 'b'))))
"""


def test_a_config_with_classes_in_it(tmp_path):
    """A new-style config has classes in place of their names."""
    (tmp_path / 'new.py').write_text(NEW_STYLE)
    cfg = Config.fromfile(tmp_path / 'new.py')
    model = load_detector(cfg, None)
    assert isinstance(model, RetinaNet)
    assert quantized_layers(model)
    assert class_names(cfg, model) == ('a', 'b')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    load_detector(cfg, tmp_path / 'a.pth')


def test_a_config_without_a_model():
    with pytest.raises(ValueError, match=r"has no model, only the keys \['a'"):
        load_detector(Config(dict(a=1)), None)


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
    """mmengine's Runner takes it from there, too."""
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
