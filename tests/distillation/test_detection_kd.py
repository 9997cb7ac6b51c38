import copy

import pytest
import torch
from kd_tools import bound, detector, tap, tapped
from mmdet.models.dense_heads import RPNHead
from mmengine.structures import InstanceData

from mmgor.registry import MODELS

DETECTIONS = dict(type='DetectionKDHead')


def detections(samples, score):
    """The labelled boxes as a teacher's, all with one score."""
    return [
        InstanceData(
            bboxes=s.gt_instances.bboxes,
            labels=s.gt_instances.labels,
            scores=torch.full((len(s.gt_instances),), score),
        )
        for s in samples
    ]


def sum_losses(losses):
    return sum(sum(x) if isinstance(x, list) else x for x in losses.values())


def setup(score):
    student = detector()
    s = tap(student)
    head = bound(DETECTIONS, student, student)
    head.map_classes([[0, 1, 2]])
    return head, s, tapped(student, detections(s.data_samples, score))


def test_sure_detections_are_labels():
    head, s, t = setup(1.0)
    truth = [x.gt_instances for x in s.data_samples]
    metas = [x.metainfo for x in s.data_samples]
    want = sum_losses(s.module.loss_by_feat(*s.output, truth, metas, None))
    torch.testing.assert_close(head(s, [t]), want)


def test_a_detection_is_drawn_as_often_as_it_is_sure():
    boxes, labels = torch.rand(20000, 4), torch.arange(20000)
    scores = torch.full((20000,), 0.3)
    torch.manual_seed(0)
    drawn = MODELS.build(DETECTIONS)._draw(boxes, scores, labels)
    assert abs(len(drawn) / 20000 - 0.3) < 0.02
    torch.testing.assert_close(drawn.bboxes, boxes[drawn.labels])


def test_doubtful_and_unknown_detections_are_left_out():
    head, s, t = setup(0.04)
    empty = [InstanceData(bboxes=torch.zeros(0, 4),
                          labels=torch.zeros(0).long())] * 2  # fmt: skip
    metas = [x.metainfo for x in s.data_samples]
    want = sum_losses(s.module.loss_by_feat(*s.output, empty, metas, None))
    torch.testing.assert_close(head(s, [t]), want)
    head, s, t = setup(1.0)
    head.map_classes([[7, -1, -1]])  # what the teacher finds is not asked for
    torch.testing.assert_close(head(s, [t]), want)


def test_labels_are_the_students():
    head, s, t = setup(1.0)
    head.map_classes([[2, 0, 1]])
    truth = [copy.deepcopy(x.gt_instances) for x in s.data_samples]
    for instances in truth:  # teacher's 0, 1 are the student's 1, 2
        instances.labels = instances.labels + 1
    metas = [x.metainfo for x in s.data_samples]
    want = sum_losses(s.module.loss_by_feat(*s.output, truth, metas, None))
    torch.testing.assert_close(head(s, [t]), want)


def test_agreeing_teachers_are_as_good_as_one():
    student = detector()
    s = tap(student)
    head = bound(DETECTIONS, student, student, student)
    head.map_classes([[0, 1, 2]] * 2)
    t = tapped(student, detections(s.data_samples, 1.0))
    one, s_one, t_one = setup(1.0)
    torch.testing.assert_close(head(s, [t, t]), one(s_one, [t_one]))


def test_classes_have_to_be_mapped():
    head, s, t = setup(1.0)
    head.class_indices = None
    with pytest.raises(RuntimeError, match='nobody mapped the teachers'):
        head(s, [t])


def test_an_rpn_knows_no_classes():
    student = detector()
    student.rpn_head = RPNHead(num_classes=1, in_channels=16)
    with pytest.raises(ValueError, match=r'dense student head.* got RPNHead'):
        bound(dict(DETECTIONS, student_tap='rpn_head'), student, detector())


def test_the_student_needs_a_dense_head():
    with pytest.raises(ValueError, match=r'a dense student head.* got FPN'):
        bound(dict(DETECTIONS, student_tap='neck'), detector(), detector())


@pytest.mark.parametrize('cfg', [dict(min_score=1.0), dict(iou_threshold=0.0)])
def test_bad_detection_head(cfg):
    with pytest.raises(ValueError, match='expected 0 <= min_score < 1'):
        MODELS.build(dict(DETECTIONS, **cfg))


def test_gradients_reach_the_student():
    head, _, t = setup(1.0)
    student = detector()
    head(tap(student), [t]).backward()
    assert student.bbox_head.retina_cls.weight.grad.abs().sum() > 0


def test_who_does_not_know_a_class_does_not_outvote_it():
    student = detector()
    head = bound(DETECTIONS, student, student, student)
    head.map_classes([[0, 1, 2], [-1, 1, 2]])
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    found = InstanceData(
        bboxes=box, scores=torch.tensor([0.8]), labels=torch.tensor([0])
    )
    _, scores, _ = head._fused([found, found])  # the second one's is dropped
    torch.testing.assert_close(scores, torch.tensor([0.8]))
    found.labels = torch.tensor([1])
    _, scores, _ = head._fused([found, found[:0]])
    torch.testing.assert_close(scores, torch.tensor([0.4]))
