"""The demo's picture of detections."""

import cv2
import numpy as np
import torch

from experiments.demo_images import draw_detections
from mmgor.training_report.detections import STUDENT, Seen, Sight
from mmgor.training_report.matching import Boxes


def boxes(corners, scores):
    return Boxes(
        torch.tensor([[c, c, c + 20, c + 20] for c in corners]).float(),
        torch.zeros(len(corners), dtype=torch.long),
        torch.tensor(scores),
    )


def sight(path, scores):
    """Two images of one object each; detections at 0 (right) and 30."""
    truth = boxes([0], [1.0])
    images = [
        Seen(path, truth, {STUDENT: boxes([0, 30], [right, bad])})
        for right, bad in scores
    ]
    return Sight(images, 2, ('disc',), {})


def test_the_score_of_the_best_f1():
    """At 0.6: both objects found, nothing wrong."""
    seen = sight('x', [(0.9, 0.2), (0.6, 0.3)])
    limit, f1 = seen.best_threshold(STUDENT)
    assert 0.3 < limit <= 0.6 + 1e-6
    assert f1 == 1


def test_detections_below_the_score_are_not_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        'experiments.demo_images._draw',
        lambda axis, path, found, scores: drawn.append((len(found), scores)),
    )
    path, out = str(tmp_path / 'a.png'), tmp_path / 'out.png'
    cv2.imwrite(path, np.zeros((50, 50, 3), np.uint8))
    good = sight(path, [(0.9, 0.2), (0.6, 0.3)])
    other = sight(path, [(0.9, 0.7), (0.8, 0.65)])
    draw_detections({'good': good, 'other': other}, out)
    # Ground truth and two models, for each of two images; the threshold of
    # one would not do for the other.
    assert drawn == [(1, False), (1, True), (1, True)] * 2
    monkeypatch.undo()
    draw_detections({'good': good}, out, count=1)
    assert cv2.imread(str(out)).ndim == 3
