"""Weighted boxes fusion against values computed by hand."""

import pytest
import torch

from mmgor.distillation.fusion.boxes import weighted_boxes_fusion


def teacher(*rows):
    """Split rows (x1, y1, x2, y2, score, label) into three tensors."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return table[:, :4], table[:, 4], table[:, 5].long()


def fuse(*teachers, **kwargs):
    boxes, scores, labels = zip(*teachers)
    return weighted_boxes_fusion(
        list(boxes), list(scores), list(labels), **kwargs
    )


def check(got, *rows):
    for value, want in zip(got, teacher(*rows)):
        torch.testing.assert_close(value, want)


# IoU of (0, 0, 10, 10) and (0, 0, 10, 8) is 80 / 100.
A = (0, 0, 10, 10, 0.6, 1)
B = (0, 0, 10, 8, 0.2, 1)
FAR = (50, 50, 60, 60, 0.9, 1)


def test_two_teachers_agree():
    # y2 = (0.6 * 10 + 0.2 * 8) / 0.8, score (0.6 + 0.2) / 2.
    check(fuse(teacher(A), teacher(B)), (0, 0, 10, 9.5, 0.4, 1))


def test_a_box_found_by_one_of_three_keeps_a_third_of_its_score():
    got = fuse(teacher(A), teacher(FAR), teacher(B))
    check(got, (50, 50, 60, 60, 0.3, 1), (0, 0, 10, 9.5, 0.8 / 3, 1))


def test_classes_do_not_mix():
    # The box of class 0 comes last and overlaps single and fused boxes.
    place = A[:4]
    got = fuse(
        teacher((*place, 0.8, 1), (*place, 0.6, 0)),
        teacher((*place, 0.7, 1), (*place, 0.9, 2)),
    )
    check(got, (*place, 0.75, 1), (*place, 0.45, 2), (*place, 0.3, 0))


def test_three_overlapping_boxes_of_one_teacher():
    # Three boxes and two teachers: mean of 0.6, 0.4, 0.2 times min(3, 2) / 2.
    # y2 = (0.6 * 10 + 0.4 * 10 + 0.2 * 8) / 1.2.
    got = fuse(teacher(A, (*A[:4], 0.4, 1), B), teacher())
    check(got, (0, 0, 10, 11.6 / 1.2, 0.4, 1))


def knows(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_only_teachers_that_know_a_class_count():
    # Teachers 0 and 1 of three know class 1, only teacher 2 knows class 2.
    known = knows([1, 1, 0], [1, 1, 0], [1, 0, 1])
    three = (
        teacher(A, FAR, (20, 20, 30, 30, 0.9, 0)),
        teacher(B),
        teacher((70, 70, 80, 80, 0.1, 2)),
    )
    check(
        fuse(*three, known=known),
        (50, 50, 60, 60, 0.45, 1),  # 0.9 / 2
        (0, 0, 10, 9.5, 0.4, 1),  # (0.6 + 0.2) / 2
        (20, 20, 30, 30, 0.3, 0),  # 0.9 / 3
        (70, 70, 80, 80, 0.1, 2),  # 0.1 / 1
    )


def test_more_boxes_than_teachers_that_know_the_class():
    # Only one of two teachers knows class 1; its three scores are averaged.
    got = fuse(
        teacher(A, (*A[:4], 0.4, 1), B),
        teacher(),
        known=knows([1, 1], [1, 0]),
    )
    check(got, (0, 0, 10, 11.6 / 1.2, 0.4, 1))


def test_by_default_all_teachers_know_all_classes():
    teachers = crowd(1)
    want = fuse(*teachers)
    got = fuse(*teachers, known=torch.ones(3, 3, dtype=torch.bool))
    for value, other in zip(got, want):
        assert torch.equal(value, other)


def test_a_box_joins_the_cluster_that_it_overlaps_most():
    # The third box overlaps the first by 6 / 10 and the second by 8 / 9.
    first, second = (0, 0, 10, 10, 0.9, 1), (0, 0, 10, 5.4, 0.8, 1)
    third = (0, 0, 10, 6, 0.4, 1)
    y2 = (0.8 * 5.4 + 0.4 * 6) / 1.2
    check(
        fuse(teacher(first, second), teacher(third)),
        (0, 0, 10, y2, 0.6, 1),
        (0, 0, 10, 10, 0.45, 1),
    )


def test_overlap_is_with_the_fused_box_not_with_its_members():
    # The third box has an IoU of 6 / 10 with the first and of 6 / 9 with the
    # fused box, whose y2 is 9. It joins if the threshold is below 6 / 9.
    boxes = [(0, 0, 10, y2, s, 1) for y2, s in ((10, 0.6), (8, 0.6), (6, 0.3))]
    args = [teacher(box) for box in boxes]
    # y2 = (0.6 * 10 + 0.6 * 8 + 0.3 * 6) / 1.5
    check(fuse(*args, iou_threshold=0.63), (0, 0, 10, 8.4, 0.5, 1))
    assert len(fuse(*args, iou_threshold=0.7)[0]) == 2


def crowd(seed, count=3):
    """Boxes of teachers that find the same 20 objects, slightly shifted."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(20, 2, generator=g) * 100
    size = torch.rand(20, 2, generator=g) * 30 + 5
    label = torch.randint(0, 3, (20,), generator=g)
    result = []
    for _ in range(count):
        start = corner + torch.randn(20, 2, generator=g)
        box = torch.cat([start, start + size], 1)
        result.append((box, torch.rand(20, generator=g), label))
    return result


def test_order_of_teachers_and_boxes_does_not_matter():
    teachers = crowd(0)
    known = knows([1, 1, 1], [0, 1, 1], [0, 0, 1])
    want = fuse(*teachers, known=known)
    assert 20 <= len(want[0]) < 40
    assert (want[1].diff() <= 0).all()
    turned = [tuple(x.flip(0) for x in t) for t in teachers[::-1]]
    for value, other in zip(fuse(*turned, known=known.flip(0)), want):
        assert torch.equal(value, other)


def test_dtypes_are_kept_and_no_gradient_flows():
    boxes, scores, labels = teacher(A)
    got = weighted_boxes_fusion(
        [boxes.half().requires_grad_()], [scores.double()], [labels.int()]
    )
    dtypes = [x.dtype for x in got]
    assert dtypes == [torch.float16, torch.float64, torch.int32]
    assert not got[0].requires_grad


def test_without_usable_boxes_the_result_is_empty():
    for got in (
        fuse(teacher()),
        fuse(teacher(), teacher()),
        # No area, x1 > x2, a score of 0.
        fuse(teacher((5, 5, 5, 9, 0.9, 1), (9, 0, 5, 9, 0.9, 1))),
        fuse(teacher((0, 0, 10, 10, 0, 1))),
    ):
        assert [tuple(x.shape) for x in got] == [(0, 4), (0,), (0,)]
        assert got[2].dtype == torch.int64
    check(fuse(teacher(), teacher(A)), (*A[:4], 0.3, 1))


def test_errors():
    boxes, scores, labels = teacher(A)
    with pytest.raises(ValueError, match=r'got 2, 1 and 1 entries'):
        weighted_boxes_fusion([boxes, boxes], [scores], [labels])
    with pytest.raises(ValueError, match=r'got 0, 0 and 0 entries'):
        weighted_boxes_fusion([], [], [])
    with pytest.raises(ValueError, match=r'teacher 0: .*\(1, 3\)'):
        weighted_boxes_fusion([boxes], [torch.rand(1, 3)], [labels])
    with pytest.raises(ValueError, match=r'\(1, K\).* shape \(2, 2\)'):
        fuse(teacher(A), known=knows([1, 1], [1, 1]))
    with pytest.raises(ValueError, match=r'\(2, K\).* shape \(2,\)'):
        fuse(teacher(A), teacher(A), known=knows(1, 1))
    with pytest.raises(ValueError, match=r'got torch\.int64'):
        fuse(teacher(A), known=knows([1, 1]).long())
    with pytest.raises(ValueError, match=r'labels in \[0, 1\).* got 1'):
        fuse(teacher(A), known=knows([1]))
    with pytest.raises(ValueError, match=r'labels in \[0, 1\).* got -1'):
        fuse(teacher((*A[:5], -1)), known=knows([1]))
    with pytest.raises(ValueError, match='iou_threshold in'):
        fuse(teacher(A), iou_threshold=1)
    with pytest.raises(ValueError, match='finite boxes and scores'):
        fuse((boxes, scores * torch.nan, labels))
    with pytest.raises(ValueError, match='finite boxes and scores'):
        fuse((boxes + torch.inf, scores, labels))
    with pytest.raises(ValueError, match='not logits'):
        fuse((boxes, scores + 1, labels))
    with pytest.raises(ValueError, match='not logits'):
        fuse((boxes, -scores, labels))
