"""Matches, F1 and the best threshold, against values counted by hand."""

import pytest
import torch

from mmgor.training_report.matching import (
    Boxes,
    best_threshold,
    f1_score,
    image_f1,
    match,
    without_ignored,
)


def boxes(*rows):
    """From (left, top, right, bottom, label, score)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5])


TRUTH = boxes((0, 0, 10, 10, 0, 1), (20, 0, 30, 10, 1, 1))


def test_the_surest_detection_takes_the_object():
    found = boxes(
        (0, 0, 10, 9, 0, 0.6),  # IoU 0.9, but the object is taken
        (0, 0, 10, 8, 0, 0.9),  # IoU 0.8
        (20, 0, 30, 10, 0, 0.8),  # of another class
        (20, 0, 30, 4, 1, 0.7),  # IoU 0.4
        (20, 0, 30, 6, 1, 0.3),  # IoU 0.6
    )
    assert match(found, TRUTH).tolist() == [-1, 0, -1, -1, 1]


def test_nothing_matches_nothing():
    assert match(boxes(), TRUTH).tolist() == []
    assert match(TRUTH, boxes()).tolist() == [-1, -1]


def test_f1():
    assert f1_score(2, 4, 2) == pytest.approx(2 * 0.5 * 1 / (0.5 + 1))
    assert f1_score(0, 3, 0) == 0
    assert f1_score(0, 0, 0) == 1


def test_the_best_threshold():
    found = boxes(
        (0, 0, 10, 10, 0, 0.9),  # right
        (50, 0, 60, 10, 0, 0.7),  # wrong
        (20, 0, 30, 10, 1, 0.6),  # right
        (70, 0, 80, 10, 1, 0.2),  # wrong
    )
    # F1 from 0.9: 2 / 3; 0.7: 2 / 4; 0.6: 4 / 5; 0.2: 4 / 6
    threshold, f1 = best_threshold([(found, TRUTH)])
    assert (threshold, f1) == pytest.approx((0.6, 0.8))
    assert image_f1(found, TRUTH, threshold) == pytest.approx(0.8)
    assert image_f1(found, TRUTH, 0.9) == pytest.approx(2 / 3)


def test_equal_scores_count_together():
    found = boxes((0, 0, 10, 10, 0, 0.5), (50, 0, 60, 10, 0, 0.5))
    threshold, f1 = best_threshold([(found, TRUTH)])
    assert (threshold, f1) == pytest.approx((0.5, 2 / 4))


def test_without_a_right_detection():
    assert best_threshold([(boxes(), TRUTH)]) == (0.5, 0.0)
    wrong = boxes((50, 0, 60, 10, 0, 0.9))
    assert best_threshold([(wrong, TRUTH)]) == (0.5, 0.0)


def test_detections_in_a_crowd_do_not_count():
    found = boxes(
        (0, 0, 10, 10, 0, 0.9),  # right, though the crowd is there, too
        (40, 0, 50, 10, 0, 0.8),  # inside of the crowd
        (55, 0, 65, 10, 0, 0.7),  # half of it is
        (58, 0, 68, 10, 0, 0.6),  # less than half
    )
    crowd = torch.tensor([[0.0, 0.0, 60.0, 10.0]])
    kept = without_ignored(found, TRUTH, crowd)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6])
    assert without_ignored(found, TRUTH, torch.empty(0, 4)) is found
    assert len(without_ignored(boxes(), TRUTH, crowd)) == 0
