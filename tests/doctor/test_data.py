"""Faults of data sets are found, each with what mends it."""

import pytest

from mmgor.doctor.data import (
    box_findings,
    class_findings,
    object_sides,
    size_findings,
    type_findings,
)
from mmgor.doctor.findings import ERROR, OK, WARNING

IMAGE = dict(id=1, file_name='a.png', width=64, height=48)
CATEGORIES = [dict(id=1, name='cell'), dict(id=2, name='dust')]


def content(*boxes, **values):
    annotations = [
        dict(
            id=i,
            image_id=1,
            category_id=1,
            bbox=box,
            area=box[2] * box[3],
            iscrowd=0,
        )
        | values
        for i, box in enumerate(boxes)
    ]
    return dict(images=[IMAGE], annotations=annotations, categories=CATEGORIES)


GOOD = [0, 0, 64, 48]


def test_a_type_that_nobody_registered():
    datasets = [dict(type='CocoDataset'), dict(type='CocoDatset')]
    (found,) = type_findings('train_dataloader', datasets)
    assert found.status == ERROR
    assert "'CocoDatset'" in found.found
    assert "did you mean 'CocoDataset'" in found.mend


def test_good_boxes():
    assert list(box_findings('f', content(GOOD), ['cell', 'dust'])) == []


@pytest.mark.parametrize('box', [[1, 1, -5, -5], [1, 1, 0, 9], [70, 1, 9, 9]])
def test_boxes_that_mmdet_drops(box):
    (found, *_) = box_findings('train x.json', content(GOOD, box), ['cell'])
    assert found.status == WARNING
    assert 'leaves out 1 of 2 boxes: 1 outside' in found.found
    assert found.mend.startswith('correct them in x.json')


def test_corners_in_place_of_sizes_reach_beyond_the_image():
    corners = [40, 30, 60, 44]
    (found,) = box_findings('f', content(corners), ['cell'])
    assert '1 of 1 boxes reach beyond their image' in found.found
    assert 'not [x1, y1, x2, y2]' in found.mend


def statuses(*arguments):
    return [f.status for f in class_findings('f', *arguments)]


def test_classes_that_fit():
    both = content(GOOD)
    both['annotations'].append(dict(both['annotations'][0], category_id=2))
    assert statuses(both, ['cell', 'dust'], 2) == []


def test_classes_that_do_not_fit():
    file = content(GOOD)
    (head, empty) = class_findings('f', file, ['cell', 'dust'], 80)
    assert (head.status, head.mend) == (
        ERROR,
        'write num_classes=2 in the head',
    )
    assert (empty.status, "['dust']" in empty.found) == (WARNING, True)
    assert statuses(file, ['dust', 'cell'], 2) == [ERROR, WARNING]  # order
    (foreign,) = class_findings('f', file, ['cell'], 1)
    assert foreign.found == "1 categories are no classes: ['dust']"


def test_a_class_that_the_file_lacks_moves_labels():
    file = content(GOOD)
    names = ['dirt', 'cell', 'dust']
    (moved, *_) = class_findings('f', file, names, 3)
    assert moved.status == ERROR
    assert 'names and labels do not match' in moved.found
    # Behind the others, it moves none.
    assert ERROR not in statuses(file, ['cell', 'dust', 'dirt'], 3)


def test_sizes_are_those_after_resizing():
    # 64 x 48 into 96 wide and 128 high: 96 / 64 of the longer side would
    # fit, mmdet takes long sides to long sides: min(128 / 64, 96 / 48) = 2.
    file = content([0, 0, 16, 4], [0, 0, 3, 3])
    assert object_sides(file, (128, 96)) == [16.0, 6.0]
    (found,) = size_findings('f', file, (128, 96), 8)
    assert found.status == WARNING
    assert '11 pixels large' in found.found
    assert '50% are smaller than the finest stride of the head, 8' in (
        found.found
    )
    (found,) = size_findings('f', file, (128, 96), 4)
    assert found.status == OK
    assert list(size_findings('f', content(), (128, 96), 8)) == []
