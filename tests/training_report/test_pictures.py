"""Boxes are drawn where they are, with readable labels."""

import base64
import re

import cv2
import numpy as np
import pytest
import torch

from mmgor.training_report.matching import Boxes
from mmgor.training_report.pictures import SIDE, drawn, jpeg, missed, wrong
from tests.support.pages import Page


def boxes(*rows, scores=None):
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    shown = torch.ones(len(rows)) if scores is None else torch.tensor(scores)
    return Boxes(table[:, :4], table[:, 4].long(), shown)


def attributes(html, tag):
    page = Page(html)
    found = {}
    for name, key, value in page.attributes:
        if name == tag:
            found.setdefault(key, []).append(value)
    return found


def test_boxes_are_in_pixels_of_the_file():
    html = drawn(
        'k', (320, 240), boxes((10, 20, 50, 80, 1)), 'ab', [True], 'title'
    )
    assert attributes(html, 'svg')['viewbox'] == ['0 0 320 240']
    rect = attributes(html, 'rect')
    assert [rect[k] for k in ('x', 'y', 'width', 'height')] == [
        ['10.0'],
        ['20.0'],
        ['40.0'],
        ['60.0'],
    ]
    assert 'stroke-dasharray' in rect
    solid = drawn('k', (9, 9), boxes((1, 1, 2, 2, 0)), 'ab', [False], '')
    assert 'stroke-dasharray' not in solid


def test_labels_stay_inside_of_the_image():
    found = boxes((315, 100, 320, 110, 0), scores=[0.256])
    html = drawn('k', (320, 240), found, ['Platelets'], [False], '')
    assert Page(html).texts['text'] == ['Platelets 0.26']
    text = attributes(html, 'text')
    start, size = (
        float(text['x'][0]),
        float(re.search(r'[\d.]+', text['style'][0])[0]),
    )
    # Wide letters are 0.6 times as wide as the text is high.
    assert start + 0.6 * size * len('Platelets 0.26') <= 320


def test_labels_without_a_name():
    html = drawn('k', (9, 9), boxes((1, 1, 2, 2, 7)), 'ab', [False], '')
    assert Page(html).texts['text'] == ['class 7']


def test_large_images_are_made_smaller(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.zeros((400, 1000, 3), np.uint8))
    uri, width, height = jpeg(str(path))
    assert (width, height) == (1000, 400)
    content = base64.b64decode(uri.partition(',')[2])
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), -1)
    assert pixels.shape == (round(400 * SIDE / 1000), SIDE, 3)


def test_files_that_are_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='image not found'):
        jpeg(str(tmp_path / 'gone.png'))
    path = tmp_path / 'a.png'
    path.write_text('no image')
    with pytest.raises(OSError, match='could not be read as an image'):
        jpeg(str(path))


def test_missed_objects_and_wrong_detections():
    truth = boxes((0, 0, 10, 10, 0), (20, 20, 30, 30, 0))
    found = boxes((50, 50, 60, 60, 0), (0, 0, 10, 10, 0))
    assert missed(found, truth) == [False, True]
    assert wrong(found, truth) == [True, False]
