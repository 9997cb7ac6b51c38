"""Scores of every dense head against mmdet's own detections."""

import pytest
import torch

from mmgor.dense_heads.scores import (
    foreground_logits,
    product_logit,
    score_logits,
)
from mmgor.dense_heads.spec import head_strides
from mmgor.registry import MODELS
from tests.support.dense_heads import (
    CLASSES,
    HEADS,
    build,
    features,
    only,
)
from tests.support.dense_heads import predictions as detections


def locations(head, levels):
    for level, x in enumerate(levels):
        for i in range(x.shape[2] * x.shape[3]):
            yield level, i // x.shape[3], i % x.shape[3]


@pytest.mark.parametrize('name', list(HEADS))
def test_scores_are_those_that_mmdet_ranks_by(name):
    head = build(name)
    with torch.no_grad():
        outputs = head(features(head))
    scores = [x.sigmoid() for x in score_logits(head, outputs)]
    assert len(scores) == len(head_strides(head))
    assert torch.cat([s.flatten() for s in scores]).std() > 0.05
    for level, y, x in locations(head, scores):
        found = detections(head, only(outputs, head, level, y, x))
        for image, result in enumerate(found):
            mine = scores[level][image, :, y, x]
            assert len(mine) == CLASSES
            theirs = torch.zeros(CLASSES).scatter_reduce(
                0, result.labels, result.scores, 'amax'
            )
            if name == 'yolox':  # keeps only the best class of a location
                assert mine.argmax() == theirs.argmax()
                mine, theirs = mine.max(), theirs.max()
            torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)


GRID = torch.cartesian_prod(
    *[torch.tensor([-50.0, -20.0, -1.0, 0.0, 0.5, 19.0, 21.0, 50.0])] * 2
)


def test_product_logit_matches_double_precision():
    a, b = GRID.double().unbind(1)
    # -log(1 / p - 1), without cancellation.
    expected = -torch.log(torch.exp(-a) + torch.exp(-b) + torch.exp(-a - b))
    a, b = (x.clone().requires_grad_() for x in GRID.unbind(1))
    actual = product_logit(a, b)
    torch.testing.assert_close(actual, expected.float(), atol=1e-5, rtol=1e-6)
    actual.sum().backward()
    assert (a.grad.isfinite() & (a.grad >= 0) & (a.grad <= 1)).all()
    assert (b.grad.isfinite() & (b.grad >= 0) & (b.grad <= 1)).all()


def test_product_logit_by_hand():
    zero = torch.zeros(())  # 1/2 * 1/2 = 1/4, whose logit is -log 3
    torch.testing.assert_close(
        product_logit(zero, zero), -torch.tensor(3.0).log()
    )


def test_foreground_logits_match_double_precision():
    values = torch.tensor([-50.0, -1.0, 0.0, 2.0, 50.0])
    x = torch.cartesian_prod(values, values, values).requires_grad_()
    actual = foreground_logits(x, 1)
    y = x.detach().double()
    expected = torch.stack(
        [
            y[:, 0] - y[:, [1, 2]].logsumexp(1),
            y[:, 1] - y[:, [0, 2]].logsumexp(1),
        ],
        1,
    )
    torch.testing.assert_close(actual, expected.float(), atol=1e-5, rtol=1e-6)
    actual.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('size', [-50, 50])
@pytest.mark.parametrize('name', list(HEADS))
def test_extreme_outputs_are_finite(name, size):
    head = build(name)
    with torch.no_grad():
        outputs = head(features(head))
    if name.startswith('tood'):  # probabilities
        size = float(size > 0)
    noise = [[torch.rand_like(x) / 100 for x in o] for o in outputs]
    if name.startswith('tood'):
        noise = [[x * 0 for x in o] for o in noise]
    outputs = tuple(
        [(x + size).requires_grad_() for x in level] for level in noise
    )
    scores = score_logits(head, outputs)
    assert all(s.isfinite().all() for s in scores)
    sum(s.sum() for s in scores).backward()
    for x in outputs[0]:
        assert x.grad.isfinite().all()


@pytest.mark.parametrize('name', ['vfnet', 'fcos_norm', 'autoassign'])
def test_training_mode_gives_the_same_scores(name):
    head = build(name)
    x = features(head)
    evaluated = score_logits(head, head(x))
    trained = score_logits(head, head.train()(x))
    torch.testing.assert_close(trained, evaluated)


def test_scores_of_half_precision_outputs_are_float():
    head = build('fcos')
    outputs = [[m.bfloat16() for m in o] for o in head(features(head))]
    assert score_logits(head, outputs)[0].dtype == torch.float32


def test_only_the_best_anchor_gets_a_gradient():
    head = build('retinanet')
    outputs = [[m.detach() for m in o] for o in head(features(head))]
    for x in outputs[0]:
        x.requires_grad_()
    sum(s.sum() for s in score_logits(head, outputs)).backward()
    for x in outputs[0]:
        by_anchor = x.grad.unflatten(1, (-1, CLASSES))
        torch.testing.assert_close(
            by_anchor.sum(1), torch.ones_like(by_anchor[:, 0])
        )


def detr_head():
    return MODELS.build(dict(type='DETRHead', num_classes=CLASSES))


def roi_head():
    return MODELS.build(
        dict(type='Shared2FCBBoxHead', num_classes=CLASSES, fc_out_channels=8)
    )


@pytest.mark.parametrize('make', [detr_head, roi_head])
def test_heads_that_are_not_dense(make):
    head = make()
    # The scores of a DETR head have 4 axes, too: the first one is layers.
    outputs = (torch.zeros(6, CLASSES + 1, 5, 4), torch.zeros(6, 2, 5, 4))
    expected = f'{type(head).__name__}: .*prior_generator.*FeatureKDHead'
    with pytest.raises(ValueError, match=expected):
        score_logits(head, outputs)


def test_outputs_that_do_not_fit():
    head = build('retinanet')
    scores, boxes = head(features(head))
    with pytest.raises(ValueError, match=r'RetinaHead: .*\[12, 12, 12\] cha'):
        score_logits(head, (boxes, scores))
    with pytest.raises(ValueError, match=r'of 3 level\(s\)'):
        score_logits(head, (scores[:2], boxes[:2]))
    with pytest.raises(ValueError, match=r'got Tensor.*DetectionKDHead'):
        score_logits(head, scores[0])


def test_a_third_output_of_other_channels_is_no_score_factor():
    head = build('fcos')
    scores, boxes, _ = head(features(head))
    for actual, x in zip(score_logits(head, (scores, boxes, boxes)), scores):
        torch.testing.assert_close(actual, x)
