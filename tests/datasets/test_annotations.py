import json

import pytest

from mmgor.datasets import check_training_data, read_annotations

GOOD = dict(images=[1], annotations=[1], categories=[1])


def coco(path, **parts):
    path.write_text(json.dumps({**GOOD, **parts}))
    return dict(
        type='CocoDataset', data_root=str(path.parent), ann_file=path.name
    )


def test_good_file_is_read(tmp_path):
    coco(tmp_path / 'a.json')
    assert read_annotations(tmp_path / 'a.json') == GOOD


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'file not found.*gone\.json'):
        read_annotations(tmp_path / 'gone.json')


@pytest.mark.parametrize('part', list(GOOD))
def test_empty_part_is_named(tmp_path, part):
    dataset = coco(tmp_path / 'a.json', **{part: []})
    with pytest.raises(ValueError, match=f'has no {part}; expected COCO'):
        check_training_data(dict(dataset=dataset))


def test_pictures_without_boxes_may_be_all_there_is(tmp_path):
    dataset = coco(tmp_path / 'a.json', annotations=[])
    dataset['filter_cfg'] = dict(filter_empty_gt=False)
    check_training_data(dict(dataset=dataset))
    dataset['filter_cfg'] = dict(filter_empty_gt=True)
    with pytest.raises(ValueError, match='has no annotations; expected COCO'):
        check_training_data(dict(dataset=dataset))


def test_wrappers_are_looked_into(tmp_path):
    good = coco(tmp_path / 'good.json')
    bad = coco(tmp_path / 'bad.json', images=[])
    wrapped = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=[good, bad]),
    )
    with pytest.raises(ValueError, match=r'bad\.json has no images'):
        check_training_data(dict(dataset=wrapped))


def test_other_datasets_and_backends_are_left_alone():
    check_training_data(None)
    check_training_data(dict(dataset=dict(type='VOCDataset', ann_file='x')))
    check_training_data(
        dict(dataset=dict(type='CocoDataset', ann_file='s3://x/y.json'))
    )
