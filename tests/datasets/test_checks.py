"""COCO files of which mmdet would use no box, or whose faults it would not
name."""

import json
import logging

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.logging import MMLogger

from mmgor.datasets import check_evaluation_data, check_training_data
from mmgor.datasets.coco_boxes import USED, box_fates, kept_images
from mmgor.registry import DATASETS
from tests.datasets.test_annotations import BOX, GOOD, IMAGE

NAN = float('nan')
#: Boxes, each after 'used' or a word of the reason why mmdet drops it.
BOXES = [
    ('used', dict(bbox=[1, 2, 8, 9])),
    ('used', dict(bbox=[-3, -3, 80, 90])),
    ('used', dict(bbox=[63, 47, 1, 1])),
    ('outside', dict(bbox=[64, 2, 8, 9])),
    ('outside', dict(bbox=[1, -9, 8, 9])),
    ('outside', dict(bbox=[1, 2, 0, 9])),
    ('outside', dict(bbox=[1, 2, -8, -9])),
    ('outside', dict(bbox=[NAN, 2, 8, 9])),
    ('outside', dict(bbox=[1, 2, 8, NAN])),
    ('below', dict(bbox=[0.1, 0.2, 0.5, 0.5])),
    ('below', dict(area=0)),
    ('below', dict(area=-5)),
    ('category_id', dict(category_id=9)),
    ('classes', dict(category_id=2)),
    ('crowd', dict(iscrowd=1)),
    ('ignored', dict(ignore=True)),
    ('not in the file', dict(image_id=7)),
]


@pytest.fixture
def told(monkeypatch):
    logger = MMLogger.get_current_instance()
    lines = []
    monkeypatch.setattr(
        logger,
        'log',
        lambda level, text, *_, **__: (
            lines.append(text) if level >= logging.WARNING else None
        ),
    )
    return lines


def content(*boxes, **parts):
    annotations = [{**BOX, **box, 'id': i + 1} for i, box in enumerate(boxes)]
    categories = [dict(id=1, name='cell'), dict(id=2, name='dust')]
    return dict(
        images=[IMAGE],
        annotations=annotations,
        categories=categories,
        **parts,
    )


def data_set(folder, coco, classes=('cell',), **more):
    path = folder / 'a.json'
    path.write_text(coco if isinstance(coco, str) else json.dumps(coco))
    stock = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
    )
    return stock | more


def check(*args, **kwargs):
    check_training_data(dict(dataset=data_set(*args, **kwargs)))


@pytest.mark.parametrize('word, box', BOXES)
def test_fates_are_those_of_mmdet(tmp_path, word, box):
    coco = content(box)
    (fate,) = box_fates(coco, ['cell'])
    assert word in fate
    stock = DATASETS.build(
        data_set(tmp_path, coco, pipeline=[], serialize_data=False)
    )
    (info,) = stock.data_list
    trained = [x for x in info['instances'] if not x['ignore_flag']]
    assert bool(trained) is (fate == USED)


@pytest.mark.parametrize(
    'filter_cfg', [None, dict(min_size=48), dict(min_size=49)]
)
@pytest.mark.parametrize('empty', [True, False])
@pytest.mark.parametrize('box', [dict(), dict(category_id=2)])
def test_kept_images_are_those_of_mmdet(tmp_path, filter_cfg, empty, box):
    filter_cfg = filter_cfg and dict(filter_cfg, filter_empty_gt=empty)
    coco = content(box)
    stock = data_set(tmp_path, coco, pipeline=[], serialize_data=False)
    stock = DATASETS.build(dict(stock, lazy_init=True, filter_cfg=filter_cfg))
    stock.data_list = stock.load_data_list()
    kept = kept_images(coco, ['cell'], filter_cfg)
    assert len(kept) == len(stock.filter_data())


@pytest.mark.parametrize('word, box', [b for b in BOXES if b[0] != 'used'])
def test_no_box_is_left(tmp_path, word, box):
    with pytest.raises(ValueError, match=rf'a\.json has 2 boxes .*2 .*{word}'):
        check(tmp_path, content(box, box))
    check(tmp_path, content(box), filter_cfg=dict(filter_empty_gt=False))


def test_some_boxes_are_lost(tmp_path, told):
    check(tmp_path, content({}, *[box for _, box in BOXES[3:5]]))
    (line,) = told
    assert 'some of 3 boxes: 2 outside its image' in line
    told.clear()
    check(tmp_path, content(*[{}] * 100, BOXES[3][1]))
    check(tmp_path, content({}, dict(iscrowd=1), dict(category_id=2)))
    assert not told


def test_a_box_without_area(tmp_path):
    coco = content({}, {})
    del coco['annotations'][1]['area']
    with pytest.raises(ValueError, match=r"1 without the key 'area'"):
        check(tmp_path, coco)


def test_classes_that_do_not_match(tmp_path, told):
    coco = content({})
    message = r"categories \['cell', 'dust'\], .* classes \['Cell'\]: expect"
    for loader in (check, lambda *a: check_evaluation(*a)):
        with pytest.raises(ValueError, match=message):
            loader(tmp_path, coco, ['Cell'])
    with pytest.raises(ValueError, match=r"classes \['person', 'bicycle'"):
        check_training_data(
            dict(dataset=dict(data_set(tmp_path, coco), metainfo=None))
        )
    check(tmp_path, coco, ['dust', 'cell'])
    assert "as the file does, ['cell', 'dust']" in told[0]
    told.clear()
    (tmp_path / 'names.txt').write_text('cell\ndust\n')
    check(tmp_path, coco, str(tmp_path / 'names.txt'))
    assert not told


def test_too_small_images(tmp_path):
    with pytest.raises(ValueError, match=r'leaves none of its 1 images'):
        check(tmp_path, content({}), filter_cfg=dict(min_size=49))


def test_images_without_boxes_may_be_all_there_is(tmp_path):
    check(tmp_path, content(), filter_cfg=dict(filter_empty_gt=False))
    with pytest.raises(ValueError, match='has no annotations; expected COCO'):
        check(tmp_path, content(), filter_cfg=dict(filter_empty_gt=True))


def test_background_beside_others(tmp_path, told):
    """mmdet trains with them, unless filter_cfg drops all images."""
    for name in ('good', 'bare', 'lost'):
        (tmp_path / name).mkdir()
    good = data_set(tmp_path / 'good', content({}))
    bare = data_set(tmp_path / 'bare', content())
    lost = data_set(tmp_path / 'lost', content(dict(bbox=[70, 2, 8, 9])))
    joined = dict(type='ConcatDataset', datasets=[good, bare, lost])
    check_training_data(dict(dataset=joined))
    assert 'some of 1 boxes: 1 outside its image' in told[0]
    bare['filter_cfg'] = dict(filter_empty_gt=True)
    with pytest.raises(ValueError, match=r'bare/a\.json.* leaves none of its'):
        check_training_data(dict(dataset=joined))


def test_an_empty_image_file(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.png').touch()
    prefix = dict(data_prefix=dict(img='images/'))
    message = r'1 of 1 images of .*a\.json are empty files, .*images/a\.png'
    with pytest.raises(ValueError, match=message):
        check(tmp_path, content({}), **prefix)
    with pytest.raises(ValueError, match=message):
        check_evaluation(tmp_path, content({}), **prefix)
    lenient = [dict(type='LoadImageFromFile', ignore_empty=True)]
    check(tmp_path, content({}), pipeline=lenient, **prefix)


def check_evaluation(*args, evaluator=None, **kwargs):
    check_evaluation_data(dict(dataset=data_set(*args, **kwargs)), evaluator)


def test_evaluation_data(tmp_path):
    check_evaluation(tmp_path, dict(GOOD, annotations=[]))
    bare = {k: v for k, v in GOOD.items() if k != 'annotations'}
    check_evaluation(tmp_path, bare, ['anything'])
    with pytest.raises(ValueError, match=r'a\.json is not a JSON file'):
        check_evaluation(tmp_path, '{')
    broken = tmp_path / 'eval.json'
    broken.write_text('{')
    metric = dict(type='CocoMetric', ann_file=str(broken))
    for evaluator in (metric, [dict(type='VOCMetric'), metric]):
        with pytest.raises(ValueError, match=r'eval\.json is not a JSON file'):
            check_evaluation_data(None, evaluator)
    check_evaluation_data(None, None)


def test_data_sets_inside_wrappers_are_checked(tmp_path):
    for name in ('good', 'bad'):
        (tmp_path / name).mkdir()
    good = data_set(tmp_path / 'good', content({}))
    bad = data_set(tmp_path / 'bad', dict(GOOD, images=[]))
    wrapped = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=[good, bad]),
    )
    with pytest.raises(ValueError, match=r'bad/a\.json has no images'):
        check_training_data(dict(dataset=wrapped))


class Lenient(CocoDataset):
    """A user's own data set, which reads its file in another way."""

    def parse_data_info(self, raw_data_info):
        return {}


class Renamed(CocoDataset):
    METAINFO = dict(classes=('cell',))


def test_other_datasets_and_backends_are_left_alone(tmp_path):
    useless = data_set(tmp_path, '{')
    others = 'VOCDataset', 'LVISV1Dataset', 'Objects365V1Dataset'
    for kind in (*others, Lenient):
        check_training_data(dict(dataset=dict(useless, type=kind)))
    check_training_data(None)
    check_training_data(dict(dataset=dict(useless, type='NoSuchDataset')))
    check_training_data(dict(dataset=dict(useless, ann_file='s3://x/y.json')))
    check_training_data(dict(dataset=dict(useless, backend_args=dict(b=1))))
    check_training_data(dict(dataset=np.zeros(3)))
    with pytest.raises(ValueError, match=r'a\.json is not a JSON file'):
        check_training_data(dict(dataset=dict(useless, type=Renamed)))
