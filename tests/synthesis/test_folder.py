import json
import random
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS

from mmgor.registry import MODELS
from mmgor.synthesis import SynthesisSpec, folder, synthesize
from mmgor.synthesis.boxes import sample_boxes
from mmgor.synthesis.images import smooth_noise
from tests.support.models import retinanet_cfg

CLASSES = ('cat', 'dog', 'bird')
SPEC = SynthesisSpec(4, (64, 96), steps=2, batch_size=2)


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


@pytest.fixture
def optimized(monkeypatch):
    """Replaces the optimisation by coloured images; the arguments and the
    result of each call."""
    calls = []

    def colour(model, images, boxes, labels, steps, report):
        generator = torch.Generator().manual_seed(len(calls))
        made = torch.rand(images.shape, generator=generator)
        calls.append((images, boxes, labels, made))
        return made

    monkeypatch.setattr(folder, 'optimize_images', colour)
    return calls


def test_pixels_and_objects_are_those_of_the_image(model, tmp_path, optimized):
    synthesize(model, CLASSES, tmp_path, SPEC)
    _, boxes, labels, made = ([*parts] for parts in zip(*optimized))
    written = json.loads((tmp_path / 'train.json').read_text())
    pixels = (255 * torch.cat(made)).round().permute(0, 2, 3, 1)
    boxes, labels = ([*chain(*parts)] for parts in (boxes, labels))
    assert len(written['images']) == 4
    for info, image, box, label in zip(
        written['images'], pixels, boxes, labels
    ):
        found = cv2.imread(str(tmp_path / 'images' / info['file_name']))
        assert (found == image.numpy()).all()
        own = [
            a for a in written['annotations'] if a['image_id'] == info['id']
        ]
        x1, y1, x2, y2 = box.unbind(1)
        wide = torch.stack([x1, y1, x2 - x1, y2 - y1], 1)
        assert torch.tensor([a['bbox'] for a in own]).allclose(wide)
        assert [a['area'] for a in own] == pytest.approx(
            wide[:, 2:].prod(1).tolist()
        )
        assert [a['category_id'] - 1 for a in own] == label.tolist()


@pytest.mark.parametrize('seed', [0, 7])
def test_seed_and_place_decide_where_a_batch_starts(
    model, tmp_path, optimized, seed
):
    synthesize(model, CLASSES, tmp_path, replace(SPEC, seed=seed))
    for place, (images, boxes, labels, _) in enumerate(optimized):
        sequence = np.random.SeedSequence([seed, 2 * place])
        generator = torch.Generator().manual_seed(
            int(sequence.generate_state(1)[0])
        )
        for box, label in zip(boxes, labels):
            wanted = sample_boxes(generator, (64, 96), 3)
            assert box.equal(wanted[0]) and label.equal(wanted[1])
        assert images.equal(smooth_noise(generator, 2, (64, 96)))
    assert len(optimized) == 2


@pytest.mark.parametrize(
    ('number', 'most', 'sizes'),
    [
        (17, 16, [9, 8]),
        (256, 16, [16] * 16),
        (5, 3, [3, 2]),
        (2, 16, [2]),
        (35, 16, [12, 12, 11]),
    ],
)
def test_no_image_is_alone_in_its_batch(
    model, tmp_path, optimized, number, most, sizes
):
    spec = SynthesisSpec(number, (32, 32), batch_size=most)
    synthesize(model, CLASSES, tmp_path, spec)
    assert [len(images) for images, *_ in optimized] == sizes


def test_a_loss_that_draws_at_random(model, tmp_path):
    plain = model.loss

    def loss(inputs, samples):
        factor = random.random() + np.random.rand() + torch.rand(())
        losses = plain(inputs, samples)
        return {k: [factor * x for x in v] for k, v in losses.items()}

    model.loss = loss
    found, seen = [], []
    for seed in range(2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        states = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        out = tmp_path / str(seed)
        synthesize(model, CLASSES, out, SPEC, lambda *args: seen.append(args))
        found.append(contents(out))
        assert states == (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
    assert found[0] == found[1]
    assert len(seen) == 8 and seen[:4] == seen[4:]


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
    assert len(dataset) == 4
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


@pytest.mark.parametrize(
    'changed',
    [
        dict(num_images=6),
        dict(size=(96, 64)),
        dict(steps=3),
        dict(batch_size=4),
        dict(seed=1),
    ],
)
def test_images_of_other_settings_are_left_alone(
    model, tmp_path, optimized, changed
):
    synthesize(model, CLASSES, tmp_path, SPEC)
    before = contents(tmp_path)
    message = f'other values of {next(iter(changed))}. Type another --out'
    with pytest.raises(FileExistsError, match=message):
        synthesize(model, CLASSES, tmp_path, replace(SPEC, **changed))
    assert contents(tmp_path) == before and len(optimized) == 2


def test_images_of_another_network_are_left_alone(model, tmp_path, optimized):
    def refused(name, classes=CLASSES):
        with pytest.raises(FileExistsError, match=f'other values of {name}'):
            synthesize(model, classes, tmp_path, SPEC)
        assert contents(tmp_path) == before

    synthesize(model, CLASSES, tmp_path, SPEC)
    before = contents(tmp_path)
    refused('classes', ('cat', 'dog', 'fish'))
    part = model.data_preprocessor
    for name in ('mean', 'std'):
        getattr(part, name)[0] += 1
        refused('preprocessing')
        getattr(part, name)[0] -= 1
    part._channel_conversion = not part._channel_conversion
    refused('preprocessing')
    part._channel_conversion = not part._channel_conversion
    synthesize(model, CLASSES, tmp_path, SPEC)  # the same call again
    torch.nn.init.zeros_(model.bbox_head.retina_cls.weight)
    refused('weights_sha256')


@pytest.mark.parametrize(
    'name', ['images/000001.png', 'train.json', 'notes.txt']
)
def test_a_folder_of_others_is_left_alone(model, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('mine')
    with pytest.raises(FileExistsError, match='did not write, such as'):
        synthesize(model, CLASSES, tmp_path, SPEC)
    assert contents(tmp_path) == {path.relative_to(tmp_path): b'mine'}


@pytest.mark.parametrize('text', ['{}', '[1]', 'mine'])
def test_a_manifest_of_others_is_left_alone(model, tmp_path, text):
    (tmp_path / 'synthesis.json').write_text(text)
    with pytest.raises(FileExistsError, match='Type another --out'):
        synthesize(model, CLASSES, tmp_path, SPEC)


def test_a_file_is_not_a_folder(model, tmp_path):
    path = tmp_path / 'out'
    path.write_text('mine')
    with pytest.raises(NotADirectoryError, match='is a file: expected a fol'):
        synthesize(model, CLASSES, path, SPEC)
    assert path.read_text() == 'mine'


def test_a_first_batch_that_fails_blocks_nothing(model, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError('out of memory')

    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(folder, 'optimize_images', fail)
        with pytest.raises(RuntimeError, match='out of memory'):
            synthesize(model, CLASSES, out, replace(SPEC, batch_size=4))
    assert not out.exists()
    synthesize(model, CLASSES, out, SPEC)


def test_images_that_were_removed(model, tmp_path, optimized):
    synthesize(model, CLASSES, tmp_path, SPEC)
    (tmp_path / 'images' / '000003.png').unlink()
    message = 'expected the 4 images of train.json, got 3; 000003.png is'
    with pytest.raises(FileNotFoundError, match=message):
        synthesize(model, CLASSES, tmp_path, SPEC)


def test_nothing_is_written_without_batch_norms(tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(ValueError, match='expected a detector that has some'):
        synthesize(torch.nn.Conv2d(3, 3, 1), CLASSES, out, SPEC)
    assert not out.exists()


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(num_images=1), '--images expected at least 2, got 1'),
        (dict(steps=0), '--steps expected at least 1, got 0'),
        (dict(batch_size=1), '--batch expected at least 2, got 1'),
        (dict(seed=-1), '--seed expected at least 0, got -1'),
        (dict(size=(64, 31)), 'at least 32 pixels, got .64, 31'),
        (dict(num_images=5, batch_size=2), 'Type --images 6, or a larger'),
    ],
)
def test_numbers_that_do_not_work(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **changed)
