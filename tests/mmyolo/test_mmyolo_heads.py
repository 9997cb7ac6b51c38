"""Scores and boxes of MMYOLO's heads against MMYOLO's own detections."""

import pytest
import torch

from mmgor.dense_heads.boxes import distribution_logits, location_boxes
from mmgor.dense_heads.scores import score_logits
from mmgor.dense_heads.spec import head_strides
from mmgor.deploy.export.graph_nms import GraphNMS
from mmgor.registry import MODELS
from tests.support.mmyolo_students import CLASSES, STUDENTS, tiny, vary

pytest.importorskip('mmyolo')
SIDES = (4, 2, 1)  # of the feature maps of a 32 px image


def build(name, training=False):
    """A head, and what it gives for two images."""
    model = MODELS.build(tiny(name))
    vary(model)
    features = [
        torch.randn(2, x.shape[1], side, side)
        for x, side in zip(
            model.extract_feat(torch.zeros(1, 3, 64, 64)), SIDES
        )
    ]
    head = model.bbox_head.train(training)
    with torch.no_grad():
        outputs = head(tuple(features))
    return head, outputs


def detections(head, outputs, level, y, x):
    """MMYOLO's detections at one location, in every class."""
    outputs = [[m.detach().clone() for m in maps] for maps in outputs[:3]]
    for i, scores in enumerate(outputs[0]):
        kept = scores[:, :, y, x].clone() if i == level else None
        scores.fill_(-1e4)
        if kept is not None:
            scores[:, :, y, x] = kept
    metas = [
        dict(ori_shape=(10**6, 10**6), img_shape=(32, 32), scale_factor=(1, 1))
    ] * 2
    cfg = dict(multi_label=True, score_thr=1e-30, nms_pre=10**6)
    cfg = type(head.test_cfg)({**head.test_cfg, **cfg, 'yolox_style': False})
    with torch.no_grad():
        return head.predict_by_feat(
            *outputs, batch_img_metas=metas, cfg=cfg, with_nms=False
        )


@pytest.mark.parametrize('name', list(STUDENTS))
def test_scores_and_boxes_are_those_of_the_detections(name):
    head, outputs = build(name)
    scores = [x.sigmoid() for x in score_logits(head, outputs)]
    boxes = location_boxes(head, outputs, training=False)
    assert head_strides(head) == [8, 16, 32]
    seen = 0
    for level, side in enumerate(SIDES):
        for y, x in ((i // side, i % side) for i in range(side**2)):
            found = detections(head, outputs, level, y, x)
            for image, result in enumerate(found):
                theirs = torch.zeros(len(CLASSES)).scatter_reduce(
                    0, result.labels, result.scores, 'amax'
                )
                mine = scores[level][image, :, y, x]
                torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)
                best = result.bboxes[result.scores.argmax()]
                box = boxes[level][image, :, y, x].clamp(min=0)
                torch.testing.assert_close(box, best, atol=1e-4, rtol=1e-5)
                seen += 1
    assert seen == 2 * (16 + 4 + 1)


@pytest.mark.parametrize('name', list(STUDENTS))
def test_training_mode_gives_the_same_layout(name):
    head, outputs = build(name, training=True)
    two = outputs[:3] if name in ('yolov5', 'yolov7', 'yolox') else outputs[:2]
    for wanted, got in zip(
        score_logits(head, two) + location_boxes(head, two, False),
        score_logits(head, outputs) + location_boxes(head, outputs, True),
    ):
        assert torch.equal(wanted, got)


def test_box_distributions_are_refused():
    """In evaluation mode, a teacher does not give them."""
    head, outputs = build('yolov8')
    with pytest.raises(ValueError, match='YOLOv8Head: expected a head with r'):
        distribution_logits(head, outputs)


def test_rotated_boxes_are_refused():
    head, outputs = build('rtmdet')
    coder = type('DistanceAnglePointCoder', (torch.nn.Module,), {})
    head.bbox_coder = coder()
    assert len(score_logits(head, outputs)) == 3
    with pytest.raises(ValueError, match=r'RTMDetHead: .*without an angle'):
        location_boxes(head, outputs, training=False)


def test_nms_in_the_graph_is_refused():
    head, outputs = build('yolov8')
    with pytest.raises(ValueError, match=r'YOLOv8Head .*Export without nms'):
        GraphNMS(head, (32, 32), outputs)
