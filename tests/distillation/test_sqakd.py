"""The SQAKD config: the student learns from the teacher, not from labels."""

import copy
import json
from argparse import ArgumentParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction

from mmgor.quantization import calibrate
from mmgor.registry import DATASETS, MODELS
from tests.support.models import make_batch, student_cfg

CONFIG = (
    Path(__file__).resolve().parents[2]
    / 'configs/demo/retinanet_r18half_w4_sqakd_from_mbv2.py'
)
# What its docstring says to type in order to keep images without boxes.
KEEP = (
    '--cfg-options train_dataloader.dataset.filter_cfg.filter_empty_gt=False'
)
BOX = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 9, 9], area=81)
BOX.update(iscrowd=0)


@pytest.fixture(scope='module')
def student(teacher_spec):
    """A tiny W4A4 RetinaNet with the config's KD heads and weights."""
    torch.manual_seed(0)
    shipped = Config.fromfile(CONFIG).model
    parts = {key: shipped[key] for key in ('kd_heads', 'gor_weighting')}
    model = MODELS.build(student_cfg(teacher_spec, **parts))
    model.init_weights()
    model.map_classes(None)
    calibrate(model, [make_batch()], lambda b: model(**b, mode='tensor'))
    return model


def step(student, batch):
    """Logged values and gradients of one training step."""
    model = copy.deepcopy(student)  # a step moves batch-norm statistics
    loss, shown = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    # DDP would wait forever for a gradient that is None.
    assert all(p.grad is not None for p in trained)
    return shown, [p.grad for p in trained]


def test_only_the_teacher_adds_to_the_loss(student):
    shown, _ = step(student, make_batch())
    assert shown['loss_cls'] == shown['loss_bbox'] == 0
    assert shown['gor_raw_task'] > 0
    total = shown['loss_kd_cls'] + shown['loss_kd_box']
    assert total > 0
    torch.testing.assert_close(shown['loss'], total)


def test_boxes_change_neither_loss_nor_gradients(student):
    batch = make_batch()
    blank = copy.deepcopy(batch)
    for sample in blank['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    shown, gradients = step(student, batch)
    without, same = step(student, blank)
    assert shown['gor_raw_task'] != without['gor_raw_task']
    assert torch.equal(shown['loss'], without['loss'])
    assert all(map(torch.equal, gradients, same))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def training_set(root, *typed, annotations=(BOX,)):
    """Three images: one with a box, one without, one of 7 px without."""
    sizes = {1: 16, 2: 16, 3: 7}
    images = []
    for key, side in sizes.items():
        image = np.zeros((side, 16, 3), np.uint8)
        cv2.imwrite(str(root / f'{key}.png'), image)
        images.append(
            dict(id=key, file_name=f'{key}.png', width=16, height=side)
        )
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=1, name='cell')],
    )
    (root / 'train.json').write_text(json.dumps(content))
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    options = parser.parse_args(typed).cfg_options or {}
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(options)
    dataset = cfg.train_dataloader.dataset
    dataset.update(
        data_root=str(root),
        data_prefix=dict(img=''),
        metainfo=dict(classes=['cell']),
    )
    return DATASETS.build(dataset)


def boxes_of(dataset):
    """Number of boxes of each image, by its id."""
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    return {sample.img_id: len(sample.gt_instances) for sample in samples}


def test_images_without_boxes_are_kept_as_the_docstring_says(tmp_path):
    assert f'\n    {KEEP}\n' in CONFIG.read_text()
    assert boxes_of(training_set(tmp_path)) == {1: 1}
    kept = training_set(tmp_path, *KEEP.split())
    assert boxes_of(kept) == {1: 1, 2: 0}
    bare = training_set(tmp_path, *KEEP.split(), annotations=())
    assert boxes_of(bare) == {1: 0, 2: 0}
