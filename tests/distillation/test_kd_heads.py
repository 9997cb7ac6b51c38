import pytest
import torch
from conftest import make_batch, retinanet_cfg

from mmgor.distillation import functional as F
from mmgor.distillation import match_size
from mmgor.distillation.head_facts import check_logits
from mmgor.registry import MODELS


def detector(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(retinanet_cfg(**kwargs))


def bound(cfg, student, teacher):
    head = MODELS.build(cfg)
    head.bind(student, teacher, 'big')
    return head


def outputs(model):
    features = model.extract_feat(make_batch()['inputs'])
    return features, model.bbox_head(features)


def test_logit_kd_equals_the_formula():
    student, teacher = detector(), detector(channels=12)
    head = bound(dict(type='LogitKDHead', loss_weight=3.0), student, teacher)
    (_, s), (_, t) = outputs(student), outputs(teacher)
    flat_s, flat_t = (
        torch.cat([F.flatten_anchors(x, 3) for x in out[0]], 1)
        for out in (s, t)
    )
    kl = F.bernoulli_kl(flat_s, flat_t).sum(-1)
    weight = flat_t.sigmoid().amax(-1)
    want = 3 * (kl * weight).sum() / weight.sum()
    torch.testing.assert_close(head(s, t), want)


def test_logit_kd_is_zero_for_equal_networks():
    student = detector()
    head = bound(dict(type='LogitKDHead'), student, student)
    _, out = outputs(student)
    assert head(out, out).item() == 0


def softmax_pair():
    cfg = retinanet_cfg()
    cfg['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss')
    return MODELS.build(cfg)


def test_logit_kd_softmax_ignores_background_in_weights():
    student = softmax_pair()
    head = bound(dict(type='LogitKDHead'), student, student)
    assert (head.use_sigmoid, head.num_classes) == (False, 4)
    s = [torch.randn(1, 9 * 4, 1, 2)]
    t = [torch.randn(1, 9 * 4, 1, 2)]
    flat_s, flat_t = (F.flatten_anchors(x[0], 4) for x in (s, t))
    weight = flat_t.softmax(-1)[..., :3].amax(-1)
    kl = F.categorical_kl(flat_s, flat_t)
    torch.testing.assert_close(
        head((s,), (t,)), (kl * weight).sum() / weight.sum()
    )


def test_feature_kd_is_the_mean_over_levels():
    head = bound(
        dict(
            type='FeatureKDHead',
            student_channels=4,
            levels=[0, (1, 0)],
            loss=dict(type='FeatureMSELoss'),
        ),
        detector(),
        detector(),
    )
    s = (torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 1, 1))
    t = (torch.full((1, 4, 2, 2), 2.0),)
    # Level pairs (0, 0) and (1, 0), the second averaged down to 1 x 1.
    assert head(s, t).item() == 4.0


def test_connectors_exist_from_construction():
    head = MODELS.build(
        dict(type='FeatureKDHead', student_channels=4, teacher_channels=6)
    )
    keys = set(head.state_dict())
    assert keys == {
        f'connectors.levels.{i}.{p}'
        for i in range(5)
        for p in ('weight', 'bias')
    }
    same = MODELS.build(dict(type='FeatureKDHead', student_channels=4))
    assert not same.state_dict()


def test_match_size_averages_down_and_interpolates_up():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert match_size(x, torch.zeros(1, 1, 1, 1)).item() == 1.5
    assert match_size(x, torch.zeros(1, 1, 4, 4)).shape == (1, 1, 4, 4)
    assert match_size(x, torch.zeros(1, 1, 2, 2)) is x


def test_unbound_head_is_an_error():
    with pytest.raises(RuntimeError, match='was not bound'):
        MODELS.build(dict(type='LogitKDHead'))(None, None)


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(loss_weight=0), 'loss_weight must be positive, got 0'),
        (dict(temperature=0.0), 'temperature must be positive'),
        (dict(foreground_gamma=-1), 'foreground_gamma must be at least 0'),
        (dict(loss_weight=float('inf')), 'must be positive, got inf'),
    ],
)
def test_bad_logit_head(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='LogitKDHead', **cfg))


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(student_channels=[4, 4]), 'student_channels has 2 entries'),
        (dict(student_channels=4, levels=[]), 'levels is empty'),
        (dict(student_channels=4, levels=None), 'levels=None .* expected'),
        (dict(student_channels=4, levels=[(0, 1, 2)]), r'\(0, 1, 2\); exp'),
        (dict(student_channels=4, levels=[0.5]), 'has the entry 0.5'),
        (dict(student_channels=0), 'student_channels=0; expected a positive'),
        (dict(student_channels='16'), "student_channels='16'; expected"),
        (
            dict(student_channels=4, teacher_channels=4.0),
            'teacher_channels=4.0; expected a positive',
        ),
    ],
)
def test_bad_feature_head(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='FeatureKDHead', **cfg))


def test_unknown_taps_are_named():
    with pytest.raises(ValueError, match="'nek' in the teacher 'big'"):
        bound(
            dict(type='FeatureKDHead', student_channels=4, teacher_tap='nek'),
            detector(),
            detector(),
        )


def test_other_class_count_is_an_error():
    with pytest.raises(ValueError, match='same class list'):
        bound(dict(type='LogitKDHead'), detector(), detector(classes=5))


def test_a_module_that_is_no_head_is_an_error():
    with pytest.raises(ValueError, match='does not tell how it classifies'):
        bound(
            dict(type='LogitKDHead', student_tap='neck'),
            detector(),
            detector(),
        )


def test_a_refused_head_is_not_bound():
    head = MODELS.build(dict(type='LogitKDHead'))
    with pytest.raises(ValueError, match='same class list'):
        head.bind(detector(), detector(classes=5), 'big')
    with pytest.raises(RuntimeError, match='was not bound'):
        head(None, None)


def test_probabilities_are_no_logits():
    cfg = retinanet_cfg()
    cfg['bbox_head']['loss_cls']['activated'] = True  # as TOODHead has it
    student = MODELS.build(cfg)
    with pytest.raises(ValueError, match='gives probabilities'):
        bound(dict(type='LogitKDHead'), student, student)


@pytest.mark.parametrize('anchors', [None, [9] * 5])
def test_box_deltas_are_no_logits(anchors):
    # 9 anchors x 4 = 36 channels: a multiple of 3 classes, not of 5.
    student = detector(classes=3 if anchors else 5)
    head = bound(dict(type='LogitKDHead', output_index=1), student, student)
    assert head.anchors == [9] * 5
    head.anchors = anchors
    _, out = outputs(student)
    with pytest.raises(ValueError, match='output_index=1 holds no class log'):
        head(out, out)


def test_levels_may_have_their_own_anchor_counts():
    four, six = torch.zeros(1, 8, 1, 1), torch.zeros(1, 12, 1, 1)
    check_logits([four, six], 2, [4, 6], 0)
    with pytest.raises(ValueError, match='level 1 has 8 channels, expected 6'):
        check_logits([four, four], 2, [4, 6], 0)


def test_output_index_out_of_range():
    student = detector()
    head = bound(dict(type='LogitKDHead', output_index=7), student, student)
    _, out = outputs(student)
    with pytest.raises(ValueError, match=r'output_index=7 .* has 2 output'):
        head(out, out)


def test_other_pyramid_or_shape_is_an_error():
    student = detector()
    head = bound(dict(type='LogitKDHead'), student, student)
    _, (logits, boxes) = outputs(student)
    with pytest.raises(ValueError, match='has 5 levels'):
        head((logits, boxes), (logits[:3], boxes))
    with pytest.raises(ValueError, match='level 0: student logits'):
        head((logits, boxes), ([logits[1], *logits[1:]], boxes))


def test_a_tap_without_feature_maps_is_an_error():
    student = detector()
    head = bound(
        dict(
            type='FeatureKDHead',
            student_channels=16,
            levels=[0],
            student_tap='bbox_head',
        ),
        student,
        student,
    )
    features, out = outputs(student)
    with pytest.raises(ValueError, match='level 0 of the student is no feat'):
        head(out, features)


def test_one_tensor_is_one_level():
    model = detector()
    head = bound(
        dict(
            type='FeatureKDHead',
            student_channels=4,
            levels=[0],
            loss=dict(type='FeatureMSELoss'),
            student_tap='backbone.conv1',
            teacher_tap='backbone.conv1',
        ),
        model,
        model,
    )
    assert head(torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)).item() == 1


def test_only_student_and_connectors_get_gradients():
    head = bound(
        dict(
            type='FeatureKDHead',
            student_channels=2,
            teacher_channels=3,
            levels=[0],
            loss=dict(type='CWDLoss', temperature=2.0),
        ),
        detector(),
        detector(),
    )
    student = torch.randn(1, 2, 4, 4, requires_grad=True)
    head((student,), (torch.randn(1, 3, 8, 8),)).backward()
    assert student.grad.abs().sum() > 0
    assert head.connectors.levels[0].weight.grad.abs().sum() > 0


def test_feature_levels_and_channels_are_checked():
    student = detector()
    features, _ = outputs(student)
    head = bound(
        dict(type='FeatureKDHead', student_channels=16, levels=[7]),
        student,
        student,
    )
    with pytest.raises(ValueError, match=r'level 7 does not exist.*5 map'):
        head(features, features)
    head = bound(
        dict(type='FeatureKDHead', student_channels=16, teacher_channels=99),
        student,
        student,
    )
    with pytest.raises(ValueError, match='Set teacher_channels=16'):
        head(features, features)
