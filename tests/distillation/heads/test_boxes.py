import pytest
import torch
from mmengine.hub import get_config
from torch import nn

from mmgor.dense_heads.scores import score_logits
from mmgor.registry import MODELS
from tests.support.dense_heads import CLASSES
from tests.support.kd import bound, detector, record, recorded

IOU = dict(type='BoxKDHead')


def constant(model, value):
    """A RetinaNet's outputs with the same deltas and scores everywhere."""
    s = record(model)
    logits, deltas = ([torch.full_like(x, value) for x in y] for y in s.output)
    return recorded(s.module, (logits, deltas))


def test_equal_boxes_are_at_distance_zero():
    model = detector()
    head = bound(IOU, model, model)
    torch.testing.assert_close(
        head(record(model), [record(model)]),
        torch.tensor(0.0),
        atol=1e-5,
        rtol=0,
    )


def test_a_box_grown_at_the_centre_has_the_iou_of_the_areas():
    model = detector()
    head = bound(dict(IOU, loss_weight=2.0), model, model)
    small, large = constant(model, 0.0), constant(model, 0.0)
    for deltas in large.output[1]:
        # dw = dh = ln 2: four times the area around the same centre.
        deltas.unflatten(1, (-1, 4))[:, :, 2:] = torch.tensor(2.0).log()
    got = head(small, [large])
    torch.testing.assert_close(got, torch.tensor(2 * 0.75))


def test_background_of_the_teacher_weighs_little():
    model = detector()
    head = bound(IOU, model, model)
    student, teacher = constant(model, 0.0), constant(model, 0.0)
    for logits in teacher.output[0]:
        logits.fill_(-30.0)
    teacher.output[0][0][..., :, 0] = 30.0  # objects in the first column ...
    teacher.output[1][0][..., :, 1:] = 1.0  # ... boxes differ elsewhere
    assert head(student, [teacher]).item() < 1e-5


def test_classes_that_the_student_lacks_do_not_count():
    model, teacher = detector(), detector(classes=5, channels=12)
    head = bound(IOU, model, teacher)
    head.map_classes([[4, -1, 0]])
    student, t = record(model), record(teacher)
    want = head(student, [t])
    for logits in t.output[0]:  # a class that only the teacher knows
        logits.unflatten(1, (-1, 5))[:, :, 1:4] += 9.0
    torch.testing.assert_close(head(student, [t]), want)
    for logits in t.output[0]:
        logits.unflatten(1, (-1, 5))[:, :, 4, 0] += 9.0
    assert not torch.allclose(head(student, [t]), want)


class Edges(nn.Module):
    """As much of a detector with a GFL head as a KD head reads."""

    def __init__(self, reg_max=4):
        super().__init__()
        cfg = get_config('mmdet::gfl/gfl_r50_fpn_1x_coco.py').model.bbox_head
        cfg.update(
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            reg_max=reg_max,
            num_classes=CLASSES,
            norm_cfg=dict(type='GN', num_groups=4),
        )
        self.bbox_head = MODELS.build(cfg)

    def record(self, seed):
        torch.manual_seed(seed)
        features = [torch.randn(1, 8, n, n) for n in (8, 4, 2, 1, 1)]
        return recorded(self.bbox_head, self.bbox_head(features))


def test_ld_is_the_softened_divergence_of_the_edges():
    model = Edges()
    head = bound(dict(IOU, form='ld', temperature=2.0), model, model)
    s, t = model.record(0), model.record(1)
    losses, weights = [], []
    for a, b, w in zip(
        s.output[1], t.output[1], score_logits(t.module, t.output)
    ):
        p, q = ((x.unflatten(1, (4, 5)) / 2).softmax(2) for x in (b, a))
        losses.append(((p * (p / q).log()).sum(2).mean(1) * 4).flatten())
        weights.append(w.sigmoid().amax(1).flatten())
    loss, weight = torch.cat(losses), torch.cat(weights)
    want = (loss * weight).sum() / weight.sum()
    torch.testing.assert_close(head(s, [t]), want)


def test_ld_needs_equal_distributions():
    ld = dict(IOU, form='ld')
    with pytest.raises(ValueError, match=r"got 4 in .* and 8 in .*='iou'"):
        bound(ld, Edges(4), Edges(8))
    with pytest.raises(ValueError, match='got None in the student'):
        bound(ld, detector(), detector())


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(form='l1'), "unknown form 'l1'; expected one of"),
        (dict(temperature=0.0), 'temperature must be positive'),
        (dict(foreground_gamma=-1), 'foreground_gamma must be at least 0'),
    ],
)
def test_bad_box_head(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(IOU, **cfg))
