from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset
from torch import nn

from mmgor.io.class_names import (
    checkpoint_classes,
    count_classes,
    dataset_classes,
    find_classes,
    loader_classes,
)

CATS = ('cat', 'dog')


def coco(classes, **keys):
    return dict(type='CocoDataset', metainfo=dict(classes=classes), **keys)


def joined(*classes):
    """Like mmdet's ConcatDataset of parts with unequal metainfo."""
    parts = [dict(classes=c, number=i) for i, c in enumerate(classes)]
    return SimpleNamespace(metainfo=parts)


def test_names_of_a_built_data_set():
    assert (
        dataset_classes(SimpleNamespace(metainfo=dict(classes=CATS))) == CATS
    )
    assert dataset_classes(SimpleNamespace(metainfo={})) is None
    assert dataset_classes(object()) is None
    assert dataset_classes(None) is None


def test_names_of_a_configured_data_set():
    for kind in ('CocoDataset', 'mmdet.CocoDataset', CocoDataset):
        assert dataset_classes(dict(type=kind))[:2] == ('person', 'bicycle')
        names = dict(type=kind, metainfo=dict(classes=['cat', 'dog']))
        assert dataset_classes(names) == CATS
    assert dataset_classes(coco(dict(cat=0, dog=1))) == CATS
    assert dataset_classes(dict(pipeline=[])) is None
    assert dataset_classes(dict(type='NotRegistered')) is None


def test_the_names_are_those_of_the_data_set_when_built(tmp_path):
    """However the config gives them."""
    path = tmp_path / 'names.txt'
    path.write_text('cat\ndog\n')
    ways = [
        dict(classes=str(path)),
        dict(classes=list(CATS)),
        dict(CLASSES=CATS),
        None,
    ]
    for metainfo in ways:
        built = CocoDataset(metainfo=metainfo, lazy_init=True)
        cfg = dict(type=CocoDataset, metainfo=metainfo)
        assert dataset_classes(cfg) == dataset_classes(built), metainfo


def test_wrapped_and_joined_data_sets():
    parts = [coco(CATS), coco(list(CATS)), joined(CATS, list(CATS))]
    wrapped = dict(type='ConcatDataset', datasets=parts)
    assert dataset_classes(dict(type='RepeatDataset', dataset=wrapped)) == CATS
    assert dataset_classes(joined(None, None)) is None


@pytest.mark.parametrize('other', [('dog', 'cat'), ('cat',), None])
def test_joined_data_sets_of_other_classes(other):
    both = joined(CATS, CATS, other), [coco(CATS), coco(CATS), joined(other)]
    for data in both:
        with pytest.raises(ValueError) as error:
            dataset_classes(data, 'train_dataloader.dataset')
        text = str(error.value)
        assert f'{CATS} in number 0 and {other} in number 2' in text
        assert 'all data sets of train_dataloader.dataset' in text
        assert 'Set metainfo=dict(classes=[...])' in text


def test_one_name_is_not_a_list():
    message = r"test data has the string 'cat' .* classes=\('cat',\)"
    for data in (coco('cat'), joined('cat')):
        with pytest.raises(ValueError, match=message):
            dataset_classes(data, 'test data')
    with pytest.raises(ValueError, match=r'has the classes \[1, 2\]; expect'):
        dataset_classes(coco([1, 2]))


def test_a_number_is_not_a_list():
    with pytest.raises(ValueError, match=r'the classes 5; expected a list of'):
        dataset_classes(dict(type='CocoDataset', metainfo=dict(classes=5)))


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / 'gone.txt', tmp_path):
        with pytest.raises(FileNotFoundError, match='class names not found'):
            dataset_classes(coco(str(path)))


def test_names_of_a_checkpoint():
    assert (
        checkpoint_classes(dict(dataset_meta=dict(classes=CATS)), 'x') == CATS
    )
    assert (
        checkpoint_classes(dict(dataset_meta=dict(CLASSES=CATS)), 'x') == CATS
    )
    assert checkpoint_classes(dict(CLASSES=list(CATS)), 'x') == CATS
    # Of joined data sets.
    metas = [dict(classes=CATS, n=1), dict(classes=list(CATS), n=2)]
    assert checkpoint_classes(dict(dataset_meta=metas), 'x') == CATS
    for meta in ({}, None, dict(dataset_meta=None), dict(epoch=3)):
        assert checkpoint_classes(meta, 'x') is None


@pytest.mark.parametrize('meta', ['x', [1], dict(dataset_meta=[1])])
def test_a_meta_that_is_not_a_dict(meta):
    with pytest.raises(ValueError, match=r'^x has the meta .*expected dict\('):
        checkpoint_classes(meta, 'x')


def test_a_checkpoint_comes_before_its_config():
    config = dict(
        val_dataloader=None,
        test_dataloader=dict(dataset=dict(type='NotRegistered')),
        train_dataloader=dict(dataset=coco(CATS)),
    )
    meta = dict(dataset_meta=dict(classes=['bird']))
    assert find_classes(meta, config, 'x') == ('bird',)
    assert find_classes({}, config, 'x') == CATS
    assert find_classes({}, dict(config, train_dataloader=None), 'x') is None
    assert loader_classes(config, 'test_dataloader') is None
    assert loader_classes(config, 'train_dataloader') == CATS
    with pytest.raises(ValueError, match=r'^the checkpoint of x has the meta'):
        find_classes('odd', config, 'x')
    config['val_dataloader'] = dict(dataset=coco('cat'))
    message = r'^val_dataloader\.dataset of the config of x has the string'
    with pytest.raises(ValueError, match=message):
        find_classes({}, config, 'x')


def head(num_classes):
    layer = nn.Identity()
    layer.num_classes = num_classes
    return layer


def test_classes_are_counted_in_the_box_head_of_every_family():
    cascade = nn.ModuleList([head(3), head(4)])
    two_stage = SimpleNamespace(roi_head=SimpleNamespace(bbox_head=head(5)))
    cascaded = SimpleNamespace(roi_head=SimpleNamespace(bbox_head=cascade))
    assert count_classes(SimpleNamespace(bbox_head=head(2))) == 2
    assert count_classes(two_stage) == 5
    assert count_classes(cascaded) == 4  # the last stage gives the labels
    assert count_classes(SimpleNamespace()) is None
