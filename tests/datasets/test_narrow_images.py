"""Images that mmdet's Resize leaves no pixel of, against Resize itself."""

import cv2
import numpy as np
import pytest

from mmgor.datasets import narrow_images as module
from mmgor.datasets.narrow_images import narrow_images
from mmgor.registry import TRANSFORMS

LOAD = dict(type='LoadImageFromFile')
SIZES = [(64, 48), (10000, 9), (9, 10000), (900, 9), (1, 1)]
IMAGES = [dict(width=width, height=height) for width, height in SIZES]


def resized(width, height, scale):
    """Whether mmdet's own transform can resize an image."""
    step = TRANSFORMS.build(dict(type='Resize', scale=scale, keep_ratio=True))
    image = np.zeros((height, width, 3), np.uint8)
    try:
        step(dict(img=image, img_shape=image.shape[:2]))
    except cv2.error:
        return False
    return True


@pytest.mark.parametrize(
    'scale', [(64, 64), (1333, 800), (416, 416), (30, 9), 0.5, 0.05, (30.0, 9)]
)
def test_the_images_at_which_resize_fails(scale):
    pipeline = [LOAD, dict(type='Resize', scale=scale, keep_ratio=True)]
    found = narrow_images(pipeline, IMAGES)
    wanted = [
        image
        for size, image in zip(SIZES, IMAGES)
        if not resized(*size, scale)
    ]
    assert found == wanted


def test_other_pipelines():
    narrow = IMAGES[1:2]
    keep = dict(keep_ratio=True)
    choices = [(9999, 9999), (64, 64)]
    for step, found in (
        (dict(type='RandomChoiceResize', scales=choices, **keep), 1),
        (dict(type='RandomChoiceResize', scales=choices[:1], **keep), 0),
        (dict(type='Resize', scale=64, **keep), 1),
        (dict(type='RandomResize', scale=[(9999, 999), (64, 64)], **keep), 1),
        (
            dict(
                type='RandomResize',
                scale=(640, 640),
                ratio_range=(0.1, 2.0),
                **keep,
            ),
            1,
        ),
        (dict(type='mmdet.Resize', scale=(640, 640), **keep), 0),
        (dict(type='mmdet.Resize', scale=(640, 64), **keep), 0),
        (dict(type='Resize', scale=(64, 64), keep_ratio=False), 0),
        (dict(type='Resize', scale_factor=0.5, **keep), 0),
        # mmcv refuses it in its own words.
        (
            dict(
                type='RandomResize', scale=(640, 640), ratio_range=0.5, **keep
            ),
            0,
        ),
    ):
        assert len(narrow_images([LOAD, step], narrow)) == found, step
    small = dict(type='Resize', scale=(64, 64), **keep)
    # What is resized then is no longer the whole image.
    assert narrow_images([LOAD, dict(type='RandomCrop'), small], narrow) == []
    assert narrow_images([LOAD, dict(type='PackDetInputs')], narrow) == []


def test_each_size_is_looked_at_once(monkeypatch):
    calls = []

    def counted(size, scale):
        calls.append(size)
        return stock(size, scale)

    stock = module.rescale_size
    monkeypatch.setattr(module, 'rescale_size', counted)
    many = [dict(image, id=i) for i in range(20) for image in IMAGES]
    resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
    found = narrow_images([resize], many)
    assert sorted(calls) == sorted(SIZES)
    # All images of a bad size are listed, in the order of the file.
    wide = {(10000, 9), (9, 10000)}
    assert found == [x for x in many if (x['width'], x['height']) in wide]
