import json

import cv2
import pytest
import torch
from mmengine.registry import DATASETS

from mmgor.registry import MODELS
from mmgor.synthesis import SynthesisSpec, folder, synthesize
from tests.support.models import retinanet_cfg

CLASSES = ('cat', 'dog', 'bird')
SPEC = SynthesisSpec(3, (64, 96), steps=2, batch_size=2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MODELS.build(retinanet_cfg()).eval()


def contents(root):
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file()
    }


def test_coco_dataset_reads_it(model, tmp_path):
    assert synthesize(model, CLASSES, tmp_path, SPEC).name == 'train.json'
    dataset = DATASETS.build(
        dict(
            type='mmdet.CocoDataset',
            data_root=str(tmp_path),
            ann_file='train.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=CLASSES),
            filter_cfg=dict(filter_empty_gt=True, min_size=8),
            pipeline=[],
        )
    )
    assert len(dataset) == 3
    written = json.loads((tmp_path / 'train.json').read_text())
    assert [c['name'] for c in written['categories']] == list(CLASSES)
    assert len({a['id'] for a in written['annotations']}) == len(
        written['annotations']
    )
    for info in dataset:
        assert cv2.imread(info['img_path']).shape == (64, 96, 3)
        wanted = [
            a
            for a in written['annotations']
            if a['image_id'] == info['img_id']
        ]
        assert len(info['instances']) == len(wanted) >= 1
        for instance, box in zip(info['instances'], wanted):
            x, y, w, h = box['bbox']
            assert instance['bbox'] == pytest.approx([x, y, x + w, y + h])
            assert instance['bbox_label'] == box['category_id'] - 1


def test_a_call_that_was_interrupted_goes_on(model, tmp_path, monkeypatch):
    whole = tmp_path / 'whole'
    synthesize(model, CLASSES, whole, SPEC)
    calls = []

    def stop(*args):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*args)

    original = folder.optimize_images
    monkeypatch.setattr(folder, 'optimize_images', stop)
    part = tmp_path / 'part'
    with pytest.raises(KeyboardInterrupt):
        synthesize(model, CLASSES, part, SPEC)
    assert len(json.loads((part / 'train.json').read_text())['images']) == 2
    monkeypatch.setattr(folder, 'optimize_images', original)
    steps = []
    synthesize(model, CLASSES, part, SPEC, lambda *args: steps.append(args))
    assert [(done, step) for done, step, _ in steps] == [(2, 1), (2, 2)]
    assert contents(part) == contents(whole)


def test_another_folder_is_left_alone(model, tmp_path):
    synthesize(model, CLASSES, tmp_path, SPEC)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match='Type another --out'):
        synthesize(
            model, CLASSES, tmp_path, SynthesisSpec(3, (64, 96), seed=1)
        )
    assert contents(tmp_path) == before


def test_a_folder_of_real_images_is_left_alone(model, tmp_path):
    (tmp_path / 'train.json').write_text('{}')
    with pytest.raises(FileExistsError, match='other settings'):
        synthesize(model, CLASSES, tmp_path, SPEC)


def test_nothing_is_written_without_batch_norms(tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(ValueError, match='expected a detector that has some'):
        synthesize(torch.nn.Conv2d(3, 3, 1), CLASSES, out, SPEC)
    assert not out.exists()


@pytest.mark.parametrize(
    'changed', [dict(num_images=0), dict(steps=0), dict(batch_size=1)]
)
def test_numbers_that_are_too_small(changed):
    settings = dict(num_images=1, size=(64, 64))
    with pytest.raises(ValueError, match='expected at least'):
        SynthesisSpec(**{**settings, **changed})
    with pytest.raises(ValueError, match='at least 32 pixels'):
        SynthesisSpec(1, (64, 31))
