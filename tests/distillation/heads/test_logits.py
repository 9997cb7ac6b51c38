"""LogitKDHead: its loss, and heads whose logits it cannot compare."""

import pytest
import torch

from mmgor.distillation.heads.logits import check_logits, flatten_anchors
from mmgor.distillation.losses.class_kl import categorical_kl
from mmgor.registry import MODELS
from tests.support import dense_heads
from tests.support.kd import (
    LOGITS,
    binary_kd,
    bound,
    detector,
    flat,
    record,
    recorded,
)
from tests.support.models import retinanet_cfg


def test_logit_kd_equals_the_formula():
    student, teacher = detector(), detector(channels=12)
    head = bound(dict(LOGITS, loss_weight=3.0), student, teacher)
    s, t = record(student), record(teacher)
    want = 3 * binary_kd(flat(s.output[0]), flat(t.output[0]))
    torch.testing.assert_close(head(s, [t]), want)


def dense_pair(mine, theirs):
    """A LogitKDHead, and the outputs of two heads of tests.support."""
    modules = [dense_heads.build(name) for name in (mine, theirs)]
    sides = []
    for module in modules:
        output = module(dense_heads.features(module))
        output = [[x + torch.randn_like(x) for x in o] for o in output]
        sides.append(recorded(module, output))
    student, teacher = (
        torch.nn.ModuleDict(dict(bbox_head=m)) for m in modules
    )
    return bound(LOGITS, student, teacher), *sides


def test_logit_kd_refuses_logits_that_are_only_half_a_score():
    head, s, t = dense_pair('gfl', 'atss')
    with pytest.raises(ValueError, match=r'False in the student \(GFLHead'):
        head(s, [t])


def test_logit_kd_refuses_heads_of_one_output():
    with pytest.raises(ValueError, match=r'YOLOV3Head in .* Use a ScoreKDHea'):
        dense_pair('yolov3', 'yolov3')


def test_logit_kd_refuses_points_half_a_cell_apart():
    message = (
        r'strides \[8, 16, 32\] with offset 0\.5, got from .*'
        r'\[8, 16, 32\] with offset 0\. Use a ScoreKDHead'
    )
    with pytest.raises(ValueError, match=message):
        dense_pair('fcos', 'yolox')


def softmax_pair():
    cfg = retinanet_cfg()
    cfg['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss')
    return MODELS.build(cfg)


def test_logit_kd_softmax_ignores_background_in_weights():
    student = softmax_pair()
    head = bound(LOGITS, student, student)
    assert not head.use_sigmoid
    module = student.bbox_head
    s, t = ([torch.randn(1, 36, 1, 2) for _ in range(5)] for _ in 'st')
    flat_s, flat_t = flat(s, 4), flat(t, 4)
    weight = flat_t.softmax(-1)[..., :3].amax(-1)
    kl = categorical_kl(flat_s, flat_t)
    torch.testing.assert_close(
        head(recorded(module, (s,)), [recorded(module, (t,))]),
        (kl * weight).sum() / weight.sum(),
    )


def test_softmax_needs_every_class_and_keeps_background_last():
    student = softmax_pair()
    head = bound(LOGITS, student, student)
    with pytest.raises(ValueError, match="lacks 1 of the student's classes"):
        head.map_classes([[0, -1, 1]])
    head.map_classes([[2, 0, 1]])
    assert head.class_indices == [[2, 0, 1, 3]]


@pytest.mark.parametrize(
    'anchors, told',
    [
        (dict(ratios=[1.0]), r'\[3, 3, 3, 3, 3\] priors per location'),
        (dict(ratios=[0.5, 1.0, 3.0]), '32 x 32, 40 x 40, 51 x 51, 18 x 55,'),
        (dict(octave_base_scale=8), 'at the first of 91 x 45'),
        (dict(strides=[16, 32, 64, 128, 256]), r'strides \[16, 32, 64, 128'),
    ],
)
def test_other_anchors_or_strides_need_another_head(anchors, told):
    cfg = retinanet_cfg()
    cfg.bbox_head.anchor_generator.update(anchors)
    message = f'got from teacher .* {told}.* Use a ScoreKDHead, which needs'
    with pytest.raises(ValueError, match=message):
        bound(LOGITS, detector(), MODELS.build(cfg))


def test_a_softmax_over_more_classes_is_no_teacher():
    cfg = retinanet_cfg(classes=4)
    cfg['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss')
    with pytest.raises(ValueError, match='expected a softmax head with 4 cla'):
        bound(LOGITS, softmax_pair(), MODELS.build(cfg))


def test_softmax_heads_are_not_fused():
    student = softmax_pair()
    with pytest.raises(ValueError, match='LogitKDHead fuses sigmoid heads'):
        bound(LOGITS, student, student, student)


def test_probabilities_are_no_logits():
    cfg = retinanet_cfg()
    cfg['bbox_head']['loss_cls']['activated'] = True  # as in TOODHead
    student = MODELS.build(cfg)
    with pytest.raises(ValueError, match='gives probabilities'):
        bound(LOGITS, student, student)


@pytest.mark.parametrize('anchors', [None, [9] * 5])
def test_box_deltas_are_no_logits(anchors):
    # 9 anchors x 4 = 36 channels: a multiple of 3 classes, not of 5.
    deltas = record(detector()).output[1]
    classes = 3 if anchors else 5
    with pytest.raises(ValueError, match='output_index=1 holds no class log'):
        check_logits(deltas, classes, anchors, 1)


def test_levels_may_have_their_own_anchor_counts():
    four, six = torch.zeros(1, 8, 1, 1), torch.zeros(1, 12, 1, 1)
    check_logits([four, six], 2, [4, 6], 0)
    with pytest.raises(ValueError, match='level 1 has 8 channels, expected 6'):
        check_logits([four, four], 2, [4, 6], 0)


def test_output_index_out_of_range():
    student = detector()
    head = bound(dict(LOGITS, output_index=7), student, student)
    with pytest.raises(ValueError, match=r'output_index=7 .* has 2 output'):
        head(record(student), [record(student)])


def test_other_pyramid_or_size_is_an_error():
    student = detector()
    head = bound(LOGITS, student, student)
    s = record(student)
    logits, boxes = s.output
    fewer = recorded(s.module, (logits[:3], boxes))
    with pytest.raises(ValueError, match='has 5 levels'):
        head(s, [fewer])
    other = recorded(s.module, ([logits[2], *logits[1:]], boxes))
    with pytest.raises(ValueError, match=r'stride 8: .* one of \(2, 2\) for'):
        head(s, [other])


def test_flatten_anchors_follows_mmdets_order():
    # Two anchors, two classes; value = 10 * pixel + channel.
    x = torch.arange(4.0).view(1, 4, 1, 1) + torch.tensor([0.0, 10.0])
    flat = flatten_anchors(x, 2)
    assert flat.tolist() == [[[0, 1], [2, 3], [10, 11], [12, 13]]]
