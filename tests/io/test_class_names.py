from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset

from mmgor.io.class_names import of_checkpoint, of_dataset

CATS = ('cat', 'dog')


def coco(classes, **keys):
    return dict(type='CocoDataset', metainfo=dict(classes=classes), **keys)


def joined(*classes):
    """Like mmdet's ConcatDataset of parts with unequal metainfo."""
    parts = [dict(classes=c, number=i) for i, c in enumerate(classes)]
    return SimpleNamespace(metainfo=parts)


def test_names_of_a_built_data_set():
    assert of_dataset(SimpleNamespace(metainfo=dict(classes=CATS))) == CATS
    assert of_dataset(SimpleNamespace(metainfo={})) is None
    assert of_dataset(object()) is None
    assert of_dataset(None) is None


def test_names_of_a_configured_data_set():
    for kind in ('CocoDataset', 'mmdet.CocoDataset', CocoDataset):
        assert of_dataset(dict(type=kind))[:2] == ('person', 'bicycle')
        names = dict(type=kind, metainfo=dict(classes=['cat', 'dog']))
        assert of_dataset(names) == CATS
    assert of_dataset(coco(dict(cat=0, dog=1))) == CATS
    assert of_dataset(dict(pipeline=[])) is None
    assert of_dataset(dict(type='NotRegistered')) is None


def test_the_names_are_those_of_the_data_set_when_built(tmp_path):
    """Whichever way they are written."""
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
        assert of_dataset(cfg) == of_dataset(built), metainfo


def test_wrapped_and_joined_data_sets():
    parts = [coco(CATS), coco(list(CATS)), joined(CATS, list(CATS))]
    wrapped = dict(type='ConcatDataset', datasets=parts)
    assert of_dataset(dict(type='RepeatDataset', dataset=wrapped)) == CATS
    assert of_dataset(joined(None, None)) is None


@pytest.mark.parametrize('other', [('dog', 'cat'), ('cat',), None])
def test_joined_data_sets_of_other_classes(other):
    both = joined(CATS, CATS, other), [coco(CATS), coco(CATS), joined(other)]
    for data in both:
        with pytest.raises(ValueError) as error:
            of_dataset(data, 'train_dataloader.dataset')
        text = str(error.value)
        assert f'{CATS} in number 0 and {other} in number 2' in text
        assert 'all data sets of train_dataloader.dataset' in text
        assert 'Set metainfo=dict(classes=[...])' in text


def test_one_name_is_no_list():
    message = r"test data has the str 'cat' .* classes=\('cat',\)"
    for data in (coco('cat'), joined('cat')):
        with pytest.raises(ValueError, match=message):
            of_dataset(data, 'test data')
    with pytest.raises(ValueError, match=r'has the classes \[1, 2\]; expect'):
        of_dataset(coco([1, 2]))


def test_a_number_is_no_list():
    with pytest.raises(ValueError, match=r'the classes 5; expected a list of'):
        of_dataset(dict(type='CocoDataset', metainfo=dict(classes=5)))


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / 'gone.txt', tmp_path):
        with pytest.raises(FileNotFoundError, match='class names not found'):
            of_dataset(coco(str(path)))


def test_names_of_a_checkpoint():
    assert of_checkpoint(dict(dataset_meta=dict(classes=CATS)), 'x') == CATS
    assert of_checkpoint(dict(dataset_meta=dict(CLASSES=CATS)), 'x') == CATS
    assert of_checkpoint(dict(CLASSES=list(CATS)), 'x') == CATS
    # Of joined data sets.
    metas = [dict(classes=CATS, n=1), dict(classes=list(CATS), n=2)]
    assert of_checkpoint(dict(dataset_meta=metas), 'x') == CATS
    for meta in ({}, None, dict(dataset_meta=None), dict(epoch=3)):
        assert of_checkpoint(meta, 'x') is None


@pytest.mark.parametrize('meta', ['x', [1], dict(dataset_meta=[1])])
def test_a_meta_that_is_none(meta):
    with pytest.raises(ValueError, match=r'^x has the meta .*expected dict\('):
        of_checkpoint(meta, 'x')
