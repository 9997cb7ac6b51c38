import json

import cv2
import numpy as np

from mmgor.datasets import SceneSpec, generate_scenes
from mmgor.datasets.scenes import draw_scene
from mmgor.datasets.shapes import CLASSES, shape_mask

SPEC = SceneSpec(num_train=3, num_eval=2, size=64, max_objects=4)


def test_same_seed_same_files(tmp_path):
    first = generate_scenes(tmp_path / 'a', SPEC)
    second = generate_scenes(tmp_path / 'b', SPEC)
    names = sorted(p.relative_to(first) for p in first.rglob('*.*'))
    assert len(names) == 3 + 5
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_new_spec_draws_again(tmp_path):
    generate_scenes(tmp_path, SPEC)
    before = (tmp_path / 'train.json').read_text()
    generate_scenes(tmp_path, SceneSpec(3, 2, 64, 4, seed=1))
    assert (tmp_path / 'train.json').read_text() != before


def test_a_teacher_has_other_scenes(tmp_path):
    generate_scenes(tmp_path, SPEC)
    before = (tmp_path / 'train.json').read_text()
    assert not (tmp_path / 'teacher.json').exists()
    generate_scenes(tmp_path, SceneSpec(3, 2, 64, 4, num_teacher=5))
    assert (tmp_path / 'train.json').read_text() == before
    content = json.loads((tmp_path / 'teacher.json').read_text())
    assert len(content['images']) == 5
    pixels = {
        (tmp_path / 'images' / f'{name}.png').read_bytes()
        for name in ('train_00000', 'eval_00000', 'teacher_00000')
    }
    assert len(pixels) == 3


def test_boxes_are_tight_around_what_is_visible():
    rng = np.random.default_rng(3)
    for _ in range(5):
        image, objects = draw_scene(rng, SPEC)
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        for label, visible in objects:
            assert 0 <= label < len(CLASSES)
            assert visible.sum() >= 20


def test_annotations_are_coco(tmp_path):
    root = generate_scenes(tmp_path, SPEC)
    content = json.loads((root / 'train.json').read_text())
    assert [c['name'] for c in content['categories']] == list(CLASSES)
    ids = [a['id'] for a in content['annotations']]
    assert len(set(ids)) == len(ids) > 0
    for annotation in content['annotations']:
        left, top, width, height = annotation['bbox']
        assert left >= 0 and top >= 0 and width > 0 and height > 0
        assert left + width <= 64 and top + height <= 64
        assert annotation['area'] <= width * height
    image = cv2.imread(str(root / 'images' / 'train_00000.png'))
    assert image.shape == (64, 64, 3)


def test_a_ring_has_a_hole_and_a_disc_has_none():
    for name, hole in (('ring', True), ('disc', False)):
        mask = shape_mask(np.random.default_rng(0), name, 200)
        rows, columns = np.nonzero(mask)
        centre = mask[int(rows.mean()), int(columns.mean())]
        assert centre != hole
