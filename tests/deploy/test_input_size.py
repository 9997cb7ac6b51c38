import pytest
from mmdet.datasets.transforms import Resize
from mmengine.config import Config

from mmgor.deploy.input_size import (
    configured_size,
    padded_size,
    size_divisor,
)


def test_size_of_the_test_images():
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
