"""Annotation files that cannot be used are refused by name."""

import json
import math

import pytest

from mmgor.datasets import read_annotations
from mmgor.datasets.annotations import check_entries

IMAGE = dict(id=1, file_name='a.png', width=64, height=48)
BOX = dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 8, 9], area=72)
GOOD = dict(
    images=[IMAGE],
    annotations=[dict(BOX, iscrowd=0)],
    categories=[dict(id=1, name='cell')],
)


def write(path, **parts):
    path.write_text(json.dumps({**GOOD, **parts}))
    return path


def test_good_file_is_read(tmp_path):
    path = write(tmp_path / 'a.json')
    assert read_annotations(path) == GOOD
    check_entries(path, GOOD)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'file not found.*gone\.json'):
        read_annotations(tmp_path / 'gone.json')


@pytest.mark.parametrize('text', ['', '{"images": [', 'PK\x03\x04'])
def test_a_broken_file_is_named(tmp_path, text):
    path = tmp_path / 'broken.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'broken\.json is not a JSON file'):
        read_annotations(path)


@pytest.mark.parametrize('content', [[], 3, None, [GOOD], dict(images={})])
def test_content_of_another_kind(tmp_path, content):
    path = tmp_path / 'odd.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'odd\.json has no images; expected'):
        read_annotations(path)


@pytest.mark.parametrize(
    'part, entry, told',
    [
        ('images', 1, r'images\[0\] is 1; expected a dict with the keys'),
        (
            'images',
            dict(IMAGE, width=None),
            'width=None; expected a finite number',
        ),
        ('images', dict(IMAGE, height='48'), "height='48'; expected a fini"),
        ('images', dict(IMAGE, id=[1]), r"\['id'\] are missing or not"),
        (
            'images',
            dict(id=1, width=1, height=1),
            r"'file_name'\] are mis",
        ),
        ('categories', dict(id=1), r"categories\[0\] .*'name'\] are"),
        ('annotations', dict(id=1), r"'image_id', 'category_id'\] are mis"),
        ('annotations', dict(BOX, bbox=[1, 2]), r'bbox=\[1, 2\]; expected'),
        ('annotations', dict(BOX, bbox=None), 'bbox=None; expected'),
        ('annotations', dict(BOX, bbox=['1', 2, 3, 4]), 'expected .x, y, wid'),
        ('images', dict(IMAGE, height=math.nan), 'height=nan; expected a'),
        ('images', dict(IMAGE, height=math.inf), 'height=inf; expected a'),
        ('annotations', dict(BOX, area='7'), "area='7'; expected a finite"),
        ('annotations', dict(BOX, area=math.nan), 'area=nan; expected a'),
    ],
)
def test_entries_that_mmdet_cannot_read(tmp_path, part, entry, told):
    with pytest.raises(ValueError, match=f'a.json: {part}.*{told}|{told}'):
        check_entries(tmp_path / 'a.json', {**GOOD, part: [entry]})


def test_what_is_ignored_need_not_be_a_box(tmp_path):
    ignored = dict(id=1, image_id=1, category_id=1, ignore=1)
    check_entries(tmp_path / 'a.json', dict(GOOD, annotations=[ignored]))


def test_two_images_of_one_id(tmp_path):
    other = dict(IMAGE, file_name='b.png')
    message = r'a\.json: the images a\.png and b\.png both have the id 1'
    with pytest.raises(ValueError, match=message):
        check_entries(
            tmp_path / 'a.json', dict(GOOD, images=[IMAGE, IMAGE, other])
        )


def test_two_boxes_of_one_id(tmp_path):
    boxes = [BOX, dict(BOX, id=9), BOX]
    with pytest.raises(ValueError, match=r'1 ids of annotations .* 1;'):
        check_entries(tmp_path / 'a.json', dict(GOOD, annotations=boxes))
