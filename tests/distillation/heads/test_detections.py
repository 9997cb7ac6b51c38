import copy

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmgor.distillation.heads.detections import systematic_draw
from mmgor.registry import MODELS
from tests.support.kd import bound, detector, record, recorded

DETECTIONS = dict(type='DetectionKDHead')


def detections(samples, score):
    """The ground-truth boxes as detections, all with one score."""
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
    s = record(student)
    head = bound(DETECTIONS, student, student)
    return head, s, recorded(student, detections(s.data_samples, score))


def loss_of(s, boxes):
    """The student's own loss with these boxes as ground truth."""
    metas = [x.metainfo for x in s.data_samples]
    return sum_losses(s.module.loss_by_feat(*s.output, boxes, metas, None))


def labelled(s, *classes):
    """The batch's ground truth of these classes."""
    truth = [x.gt_instances for x in s.data_samples]
    return [t[torch.isin(t.labels, torch.tensor(classes))] for t in truth]


def test_sure_detections_are_labels():
    head, s, t = setup(1.0)
    want = loss_of(s, labelled(s, 0, 1))  # all classes of the batch
    torch.testing.assert_close(head(s, [t]), want)


def test_as_many_are_drawn_in_a_batch_as_the_scores_sum_to(monkeypatch):
    head, s, t = setup(0.5)  # two images with two boxes each
    seen = []
    monkeypatch.setattr(
        s.module,
        'loss_by_feat',
        lambda cls, box, boxes, *_: (
            seen.append(boxes) or dict(loss=torch.zeros(1))
        ),
    )
    torch.manual_seed(0)
    for _ in range(20):
        head(s, [t])
    assert {sum(len(x) for x in boxes) for boxes in seen} == {2}
    ever = torch.cat([x.bboxes for boxes in seen for x in boxes]).unique(dim=0)
    every = torch.cat([x.gt_instances.bboxes for x in s.data_samples])
    torch.testing.assert_close(ever, every.unique(dim=0))


def test_doubtful_and_unknown_detections_are_left_out():
    head, s, t = setup(0.04)
    want = loss_of(s, labelled(s))
    torch.testing.assert_close(head(s, [t]), want)
    head, s, t = setup(1.0)
    head.map_classes([[7, 8, 9]])  # the student has none of the classes found
    torch.testing.assert_close(head(s, [t]), want)


def test_classes_that_no_teacher_knows_are_not_taught_as_absent():
    head, s, t = setup(1.0)
    head.map_classes([[-1, 7, 8]])  # the teacher does not know class 0
    torch.testing.assert_close(head(s, [t]), loss_of(s, labelled(s, 0)))
    both = bound(DETECTIONS, detector(), detector(), detector())
    both.map_classes([[-1, 7, -1], [-1, -1, 7]])
    torch.testing.assert_close(both(s, [t, t]), loss_of(s, labelled(s, 0)))
    both.map_classes([[-1, 7, -1], [7, -1, 7]])
    torch.testing.assert_close(both(s, [t, t]), loss_of(s, labelled(s)))


def test_ground_truth_may_be_of_a_box_type():
    head, s, t = setup(1.0)
    head.map_classes([[-1, 7, 8]])
    want = head(s, [t])
    for sample in s.data_samples:
        truth = sample.gt_instances
        truth.bboxes = HorizontalBoxes(truth.bboxes)
    torch.testing.assert_close(head(s, [t]), want)


@pytest.mark.parametrize('side', ['width', 'height'])
def test_boxes_without_area_are_left_out(side):
    head, s, t = setup(1.0)
    want = head(s, [t])
    flat = [9.0, 5.0, 9.0, 25.0] if side == 'width' else [5.0, 9.0, 25.0, 9.0]
    found = InstanceData(
        bboxes=torch.tensor([flat]),
        labels=torch.tensor([0]),
        scores=torch.tensor([1.0]),
    )
    more = [InstanceData.cat([x, found]) for x in t.output]
    torch.testing.assert_close(head(s, [recorded(t.module, more)]), want)


def test_labels_are_the_students():
    head, s, t = setup(1.0)
    head.map_classes([[2, 0, 1]])
    truth = copy.deepcopy(labelled(s, 0, 1))
    for instances in truth:  # the teacher's 0 and 1 are the student's 1 and 2
        instances.labels = instances.labels + 1
    torch.testing.assert_close(head(s, [t]), loss_of(s, truth))


def test_agreeing_teachers_are_as_good_as_one():
    student = detector()
    s = record(student)
    head = bound(DETECTIONS, student, student, student)
    t = recorded(student, detections(s.data_samples, 1.0))
    one, s_one, t_one = setup(1.0)
    torch.testing.assert_close(head(s, [t, t]), one(s_one, [t_one]))


def test_the_student_needs_a_dense_head():
    with pytest.raises(ValueError, match=r'a dense student head.* got FPN'):
        bound(dict(DETECTIONS, student_tap='neck'), detector(), detector())


@pytest.mark.parametrize('cfg', [dict(min_score=1.0), dict(iou_threshold=0.0)])
def test_bad_detection_head(cfg):
    told = f'{next(iter(cfg))} must be in '
    with pytest.raises(ValueError, match=told):
        MODELS.build(dict(DETECTIONS, **cfg))


def test_gradients_reach_the_student():
    head, _, t = setup(1.0)
    student = detector()
    head(record(student), [t]).backward()
    assert student.bbox_head.retina_cls.weight.grad.abs().sum() > 0


def test_who_does_not_know_a_class_does_not_outvote_it():
    student = detector()
    head = bound(DETECTIONS, student, student, student)
    head.map_classes([[0, 1, 2], [-1, 1, 2]])
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    found = InstanceData(
        bboxes=box, scores=torch.tensor([0.8]), labels=torch.tensor([0])
    )
    indices = head.class_tensors(box.device, 3, [None] * 2)
    # The second teacher does not know the class: its box is dropped.
    (_, scores, _), _ = head._found([[found], [found]], indices)
    torch.testing.assert_close(scores, torch.tensor([0.8]))
    found.labels = torch.tensor([1])
    (_, scores, _), _ = head._found([[found], [found[:0]]], indices)
    torch.testing.assert_close(scores, torch.tensor([0.4]))


def test_systematic_draw_by_hand():
    scores = torch.tensor([0.9, 0.5, 0.3])
    # Running sums from 0.05: 0.95, 1.45, 1.75; from 0.35: 1.25, 1.75, 2.05.
    got = systematic_draw(scores, torch.tensor(0.05))
    assert got.tolist() == [False, True, False]
    got = systematic_draw(scores, torch.tensor(0.35))
    assert got.tolist() == [True, False, True]
    assert systematic_draw(scores[:0], torch.tensor(0.5)).tolist() == []


def test_systematic_draw_draws_by_score_and_always_as_many():
    scores = torch.tensor([0.05, 1.0, 0.71, 0.33, 0.0, 0.68, 1.0, 0.12])
    starts = (torch.arange(1000) + 0.5) / 1000
    drawn = torch.stack([systematic_draw(scores, u) for u in starts])
    torch.testing.assert_close(
        drawn.float().mean(0), scores, atol=2e-3, rtol=0
    )
    assert set(drawn.sum(1).tolist()) == {3, 4}  # the scores sum to 3.89
    assert drawn[:, [1, 6]].all() and not drawn[:, 4].any()
