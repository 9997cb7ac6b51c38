import pytest
from mmcv.ops import nms
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import Resize
from mmdet.models import FPN, ResNet
from mmengine.config import Config, ConfigDict
from torch import nn

from mmgor.io.config_reader import (
    datasets,
    loader_datasets,
    model_config,
    named,
    type_name,
)
from mmgor.quantization import QuantNeck


def test_a_type_is_a_name_a_scoped_name_or_a_class():
    for kind in ('Resize', 'mmdet.Resize', Resize):
        assert type_name(dict(type=kind)) == 'Resize'
    assert type_name(dict(depth=18)) == ''


def test_classes_by_their_registered_names():
    cfg = ConfigDict(
        type=ResNet,
        norm_cfg=dict(type=nn.BatchNorm2d),
        steps=[dict(type=Resize, scale=(4, 2))],
        pair=(nn.ReLU, 'mmdet.FPN'),
        neck=dict(type=QuantNeck, neck=FPN),
    )
    got = named(cfg)
    assert got == dict(
        type='ResNet',
        norm_cfg=dict(type='BN'),
        steps=[dict(type='Resize', scale=(4, 2))],
        pair=('ReLU', 'mmdet.FPN'),
        neck=dict(type='QuantNeck', neck='FPN'),
    )
    assert isinstance(got, ConfigDict) and cfg.type is ResNet


def test_a_class_without_a_name_is_named():
    class Mine(nn.Module):
        pass

    with pytest.raises(ValueError, match=r'Mine, which is in none .*register'):
        named(dict(model=[dict(type=Mine)]))
    with pytest.raises(ValueError, match=r"nms, .* such as nms=dict\(type='n"):
        named(dict(nms=dict(type=nms)))


def test_datasets_out_of_their_wrappers():
    a, b = dict(type='CocoDataset', ann_file='a'), dict(type=CocoDataset)
    built = object()
    wrapped = dict(
        type='RepeatDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[dict(type='ClassBalancedDataset', dataset=a), b, built],
        ),
    )
    assert list(datasets(wrapped)) == [a, b, built]
    assert list(datasets([a, dict(type='RepeatDataset', dataset=b)])) == [a, b]
    # A custom data set may have a key of that name for something else.
    own = dict(type='Mine', dataset='train')
    assert list(datasets(own)) == [own]
    assert list(datasets(None)) == list(datasets({})) == []
    cfg = Config(dict(test_dataloader=dict(dataset=wrapped)))
    assert len(loader_datasets(cfg, 'test_dataloader')) == 3
    cfg.test_dataloader = None
    assert loader_datasets(cfg, 'test_dataloader') == []
    assert loader_datasets(cfg, 'val_dataloader') == []


def test_the_model_is_a_copy_with_its_preprocessor():
    cfg = Config(dict(model=dict(type='X'), data_preprocessor=dict(type='P')))
    model = model_config(cfg)
    assert model == dict(type='X', data_preprocessor=dict(type='P'))
    assert cfg.model == dict(type='X')
    cfg.model.data_preprocessor = dict(type='Q')
    assert model_config(cfg).data_preprocessor == dict(type='Q')
