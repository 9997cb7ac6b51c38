"""Boxes of every dense head against mmdet's own detections."""

import pytest
import torch
from mmengine.config import ConfigDict

from mmgor.dense_heads.boxes import distribution_logits, location_boxes
from mmgor.registry import MODELS
from tests.support.dense_heads import (
    HEADS,
    STRIDES,
    build,
    features,
    only,
    predictions,
)


@pytest.mark.parametrize('name', list(HEADS))
def test_boxes_are_those_of_the_best_detection(name):
    head = build(name)
    with torch.no_grad():
        outputs = head(features(head))
    boxes = location_boxes(head, outputs, training=False)
    assert len(boxes) == len(outputs[0])
    for level, maps in enumerate(boxes):
        h, w = outputs[0][level].shape[-2:]
        assert maps.shape == (2, 4, h, w)
        for y, x in ((i // w, i % w) for i in range(h * w)):
            found = predictions(head, only(outputs, head, level, y, x))
            for image, result in enumerate(found):
                best = result.scores.argmax()
                torch.testing.assert_close(
                    maps[image, :, y, x],
                    result.bboxes[best],
                    atol=1e-4,
                    rtol=1e-5,
                )


TWO_MODES = ['fcos', 'fcos_norm', 'autoassign', 'centernet', 'vfnet']


@pytest.mark.parametrize('name', TWO_MODES)
def test_training_mode_gives_the_same_boxes(name):
    head = build(name)
    x = features(head)
    outputs = head(x)
    trained = head.train()(x)
    torch.testing.assert_close(
        location_boxes(head, trained, training=True),
        location_boxes(head, outputs, training=False),
    )
    differs = not torch.equal(outputs[1][0], trained[1][0])
    assert differs is (name in ('fcos_norm', 'centernet', 'vfnet'))


def test_autoassign_gives_pixels_whatever_norm_on_bbox_says():
    head = build('autoassign', norm_on_bbox=True)
    x = features(head)
    torch.testing.assert_close(
        location_boxes(head, head.train()(x), training=True),
        location_boxes(head, head.eval()(x), training=False),
    )


@pytest.mark.parametrize('name', list(HEADS))
def test_box_outputs_get_a_gradient(name):
    head = build(name)
    with torch.no_grad():
        outputs = head(features(head))
    outputs = tuple([x.requires_grad_() for x in o] for o in outputs)
    boxes = location_boxes(head, outputs, training=False)
    sum(b.sum() + b.square().mean() for b in boxes).backward()
    for x in outputs[0 if name == 'yolov3' else 1]:
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0


def test_boxes_by_hand():
    """Distances 1, 2, 3, 4 from the centre of the location at (1, 0)."""
    head = build('fcos')
    scores, boxes, centers = head(features(head))
    for x in boxes:
        x.data = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1).expand_as(x)
    found = location_boxes(head, (scores, boxes, centers), training=False)
    assert found[0][0, :, 0, 1].tolist() == [11.0, 2.0, 15.0, 8.0]


def test_mixed_precision_decodes_in_float():
    head = build('gfl')
    outputs = head(features(head))
    expected = location_boxes(head, outputs, training=False)
    with torch.autocast('cpu', torch.bfloat16):
        actual = location_boxes(head, outputs, training=False)
    torch.testing.assert_close(actual, expected)


def test_distributions_are_integrated_to_boxes():
    head = build('gfl')
    outputs = head(features(head))
    levels = distribution_logits(head, outputs)
    assert [x.shape[:3] for x in levels] == [(2, 4, 6)] * 3
    boxes = location_boxes(head, outputs, training=False)
    for logits, box, stride in zip(levels, boxes, STRIDES):
        steps = torch.arange(6.0).view(6, 1, 1)
        left, top, right, bottom = (logits.softmax(2) * steps).sum(2).unbind(1)
        torch.testing.assert_close(
            box[:, 2] - box[:, 0], (left + right) * stride
        )
        torch.testing.assert_close(
            box[:, 3] - box[:, 1], (top + bottom) * stride
        )


def test_distributions_of_a_head_that_has_none():
    head = build('retinanet')
    with pytest.raises(ValueError, match=r'RetinaHead: .*reg_max'):
        distribution_logits(head, head(features(head)))


def test_distributions_that_do_not_fit():
    head = build('gfl')
    scores, boxes = head(features(head))
    head.reg_max = 16
    with pytest.raises(ValueError, match=r'GFLHead: .*\[68, 68, 68\] chann'):
        distribution_logits(head, (scores, boxes))
    with pytest.raises(ValueError, match=r'2 outputs, got 1'):
        distribution_logits(head, (scores,))


def test_a_head_that_decodes_in_its_own_way():
    """FoveaHead has a DistancePointBBoxCoder but does not use it."""
    cfg = dict(
        type='FoveaHead',
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        strides=STRIDES,
        base_edge_list=[16, 32, 64],
        scale_ranges=((8, 32), (16, 64), (32, 128)),
    )
    head = MODELS.build(ConfigDict(cfg))
    outputs = head(features(head))
    with pytest.raises(ValueError, match=r'FoveaHead: .*DetectionKDHead'):
        location_boxes(head, outputs, training=False)


def test_a_head_without_boxes():
    head = build('retinanet')
    scores, _ = head(features(head))
    with pytest.raises(ValueError, match=r'RetinaHead: .*got 1 output'):
        location_boxes(head, (scores,), training=False)
