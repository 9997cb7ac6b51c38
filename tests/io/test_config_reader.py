import pytest
from mmcv.ops import SyncBatchNorm, nms
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import Resize
from mmdet.models import FPN, ResNet
from mmengine.config import Config, ConfigDict
from torch import nn

from mmgor.distillation.losses.features import PKDLoss
from mmgor.io.config_reader import (
    loader_datasets,
    model_config,
    read_config,
    type_name,
    unwrapped_datasets,
    with_registered_names,
)
from mmgor.quantization import QuantNeck
from tests.support.scopes import SCOPE, downstream


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
    got = with_registered_names(cfg)
    assert got == dict(
        type='ResNet',
        norm_cfg=dict(type='BN'),
        steps=[dict(type='Resize', scale=(4, 2))],
        pair=('ReLU', 'mmdet.FPN'),
        neck=dict(type='QuantNeck', neck='FPN'),
    )
    assert isinstance(got, ConfigDict) and cfg.type is ResNet


def test_names_in_another_scope():
    with downstream() as models:
        theirs = models.module_dict
        cfg = dict(
            type=theirs['TheirHead'],
            act_cfg=dict(type=nn.ReLU),
            neck=dict(type=QuantNeck, neck=FPN),
            losses=[dict(type=theirs['PKDLoss']), dict(type=PKDLoss)],
        )
        assert with_registered_names(cfg, SCOPE) == dict(
            type='TheirHead',
            act_cfg=dict(type='ReLU'),
            neck=dict(type='QuantNeck', neck='mmdet.FPN'),
            losses=[dict(type='PKDLoss'), dict(type='mmengine.PKDLoss')],
        )
        got = with_registered_names(cfg)
        assert got['type'] == f'{SCOPE}.TheirHead'
        assert got['neck'] == dict(type='QuantNeck', neck='FPN')


def test_a_class_without_a_name_is_named():
    class Mine(nn.Module):
        pass

    with pytest.raises(ValueError, match=r'Mine, which is in no registry.*@M'):
        with_registered_names(dict(model=[dict(type=Mine)]))
    with pytest.raises(ValueError, match=r"nms, .* such as nms=dict\(type='n"):
        with_registered_names(dict(nms=dict(type=nms)))


def test_datasets_inside_their_wrappers():
    a, b = dict(type='CocoDataset', ann_file='a'), dict(type=CocoDataset)
    built = object()
    wrapped = dict(
        type='RepeatDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[dict(type='ClassBalancedDataset', dataset=a), b, built],
        ),
    )
    assert list(unwrapped_datasets(wrapped)) == [a, b, built]
    assert list(
        unwrapped_datasets([a, dict(type='RepeatDataset', dataset=b)])
    ) == [a, b]
    # A custom data set may have a key of that name for something else.
    own = dict(type='Mine', dataset='train')
    assert list(unwrapped_datasets(own)) == [own]
    assert list(unwrapped_datasets(None)) == list(unwrapped_datasets({})) == []
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


def test_a_model_alone_without_files_to_download():
    init = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    inner = dict(type='TIMMBackbone', pretrained=True, init_cfg=init)
    model = dict(type='X', init_cfg=init, backbone=inner)
    assert model_config(model) == dict(
        type='X', backbone=dict(type='TIMMBackbone')
    )
    assert 'init_cfg' in model
    for wrong in (dict(optimizer=1), dict(model=None), dict(model={})):
        message = rf"^the config has no model, only .*\['{next(iter(wrong))}'"
        with pytest.raises(ValueError, match=message):
            model_config(wrong)


def test_batch_norm_that_needs_several_processes():
    model = dict(type='X', heads=[dict(norm_cfg=dict(type='mmcv.MMSyncBN'))])
    assert model_config(model).heads[0].norm_cfg == dict(type='SyncBN')
    model['heads'][0]['norm_cfg']['type'] = SyncBatchNorm
    assert model_config(model).heads[0].norm_cfg == dict(type='SyncBN')


def test_where_configs_come_from(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('x = 1\n')
    assert read_config(path).x == read_config(str(path)).x == 1
    given = dict(x=1)
    assert read_config(given) is given
    found = read_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    assert found.model.type == 'RetinaNet'
    path.write_text('x = (')
    for wrong, error, message in (
        (3, ValueError, "^config is 3; expected a path, an 'mmdet::"),
        ('gone.py', FileNotFoundError, r'^config not found: gone\.py; expec'),
        (path, RuntimeError, r'^config could not be read: .*a\.py'),
    ):
        with pytest.raises(error, match=message):
            read_config(wrong)
