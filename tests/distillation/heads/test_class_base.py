"""KD heads on classes: class lists, fusion, levels, arguments."""

import pytest
import torch
from mmdet.models.dense_heads import RPNHead
from mmengine.structures import InstanceData

from mmgor.dense_heads.scores import score_logits
from mmgor.registry import MODELS
from tests.support.kd import (
    LOGITS,
    SCORES,
    binary_kd,
    bound,
    detector,
    flat,
    record,
    recorded,
)
from tests.support.models import retinanet_cfg

DENSE_HEADS = ['LogitKDHead', 'ScoreKDHead', 'BoxKDHead']
CLASS_HEADS = [*DENSE_HEADS, 'DetectionKDHead']


def answer(teacher, kind):
    """A teacher's output for a KD head of this kind; no detections."""
    if kind != 'DetectionKDHead':
        return record(teacher)
    none = InstanceData(
        bboxes=torch.zeros(0, 4),
        labels=torch.zeros(0).long(),
        scores=torch.zeros(0),
    )
    return recorded(teacher, [none, none])


@pytest.mark.parametrize('cfg', [LOGITS, SCORES])
def test_equal_networks_have_nothing_to_learn(cfg):
    student = detector()
    head = bound(cfg, student, student)
    assert head(record(student), [record(student)]).item() == 0


@pytest.mark.parametrize('cfg', [LOGITS, SCORES])
def test_classes_are_taken_by_name_and_unknown_ones_left_out(cfg):
    student, teacher = detector(), detector(channels=12, classes=5)
    head = bound(cfg, student, teacher)
    head.map_classes([[4, -1, 0]])
    s, t = record(student), record(teacher)
    if cfg is LOGITS:
        mine, theirs = flat(s.output[0]), flat(t.output[0], 5)
    else:
        mine, theirs = (
            torch.cat([x.flatten(2).mT for x in score_logits(*pair)], 1)
            for pair in ((s.module, s.output), (t.module, t.output))
        )
    want = binary_kd(mine[..., [0, 2]], theirs[..., [4, 0]])
    torch.testing.assert_close(head(s, [t]), want)


@pytest.mark.parametrize('kind', CLASS_HEADS)
def test_equal_class_numbers_are_not_taken_for_equal_lists(kind):
    student = detector()
    head = bound(dict(type=kind), student, student)
    head.class_indices = None
    message = r"classes were not mapped.*\[dict\(type='GoRWeightHook'\)\]"
    with pytest.raises(RuntimeError, match=message):
        head(record(student), [answer(student, kind)])


@pytest.mark.parametrize('kind', CLASS_HEADS)
def test_the_student_needs_an_output_for_each_class_of_its_data(kind):
    student = detector()
    head = bound(dict(type=kind), student, student)
    head.map_classes([[0]])
    with pytest.raises(ValueError, match='3 classes, its training data has 1'):
        head(record(student), [answer(student, kind)])


@pytest.mark.parametrize('kind', DENSE_HEADS)
def test_the_teacher_needs_an_output_for_each_class_it_names(kind):
    student = detector()
    head = bound(dict(type=kind), student, student)
    head.map_classes([[0, 3, 1]])
    message = "teacher 'big' has 3 classes, but a class .* is at position 3 of"
    with pytest.raises(ValueError, match=message):
        head(record(student), [record(student)])


@pytest.mark.parametrize('kind', CLASS_HEADS)
@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_an_rpn_knows_no_classes(kind, side):
    if (kind, side) == ('DetectionKDHead', 'teacher'):
        pytest.skip('reads no head of the teacher')
    model = detector()
    model.rpn_head = RPNHead(num_classes=1, in_channels=16)
    cfg = {'type': kind, f'{side}_tap': 'rpn_head'}
    with pytest.raises(ValueError, match="got the RPNHead 'rpn_head' of the"):
        bound(cfg, model, model)


@pytest.mark.parametrize('cfg', [LOGITS, SCORES])
def test_two_teachers_teach_the_mean_of_their_scores(cfg):
    student = detector()
    one, two = detector(channels=12), detector(channels=4)
    head = bound(cfg, student, one, two)
    s, teachers = record(student), [record(one), record(two)]
    got = head(s, teachers)
    if cfg is LOGITS:
        mine, *theirs = (flat(x.output[0]) for x in (s, *teachers))
    else:
        mine, *theirs = (
            torch.cat(
                [x.flatten(2).mT for x in score_logits(t.module, t.output)], 1
            )
            for t in (s, *teachers)
        )
    fused = torch.stack([x.sigmoid() for x in theirs]).mean(0).logit()
    torch.testing.assert_close(got, binary_kd(mine, fused))
    assert {n: w.item() for n, w in head.shares.items()} == dict(
        big0=0.5, big1=0.5
    )
    torch.testing.assert_close(
        head.teacher_losses['big1'], binary_kd(mine, theirs[1])
    )


def test_learned_fusion_is_trained_with_the_student():
    student = detector()
    one, two = detector(channels=12), detector(channels=4)
    head = bound(dict(SCORES, fusion='learned'), student, one, two)
    assert set(head.state_dict()) == {'fusion.logits'}
    head(record(student), [record(one), record(two)]).backward()
    assert head.fusion.logits.grad.abs().sum() > 0


def test_a_class_is_learned_from_those_who_know_it():
    student, teacher = detector(), detector(channels=12)
    head = bound(SCORES, student, teacher, teacher)
    head.map_classes([[0, 1, -1], [-1, 1, -1]])
    s, t = record(student), record(teacher)
    mine, theirs = (
        torch.cat(
            [x.flatten(2).mT for x in score_logits(y.module, y.output)], 1
        )[..., :2]
        for y in (s, t)
    )
    torch.testing.assert_close(head(s, [t, t]), binary_kd(mine, theirs))


def test_levels_that_only_one_side_has_get_no_signal():
    student, teacher = detector(), detector(channels=12)
    teacher.bbox_head.prior_generator.strides[3:] = [(256, 256), (512, 512)]
    head = bound(SCORES, student, teacher)
    s, t = record(student), record(teacher)
    mine, theirs = (
        torch.cat(
            [x.flatten(2).mT for x in score_logits(y.module, y.output)[:3]], 1
        )
        for y in (s, t)
    )
    torch.testing.assert_close(head(s, [t]), binary_kd(mine, theirs))


def test_a_further_padded_teacher_is_cropped():
    student, teacher = detector(), detector(channels=12)
    wide = record(teacher)
    padded = [
        torch.nn.functional.pad(x, (0, n, 0, n), value=9.0)
        for x, n in zip(wide.output[0], (4, 2, 1, 1, 0))
    ]
    more = recorded(teacher.bbox_head, (padded, wide.output[1]), 96)
    for cfg in (LOGITS, SCORES):
        head = bound(cfg, student, teacher)
        s = record(student)
        torch.testing.assert_close(head(s, [more]), head(s, [wide]))


@pytest.mark.parametrize('kind', DENSE_HEADS)
def test_a_teacher_whose_maps_are_larger_than_its_strides_say(kind):
    cfg = retinanet_cfg()
    cfg.neck.start_level = 0
    student, teacher = detector(), MODELS.build(cfg)
    head = bound(dict(type=kind), student, teacher)
    message = r"stride 8: .* \(8, 8\) .* 'big' one of \(16, 16\) for \(64, 64"
    with pytest.raises(ValueError, match=message):
        head(record(student), [record(teacher)])


@pytest.mark.parametrize('kind', DENSE_HEADS)
def test_heads_that_read_a_module_refuse_detections(kind):
    with pytest.raises(ValueError, match=f"{kind} .* not teacher_tap='detect"):
        MODELS.build(dict(type=kind, teacher_tap='detections'))


@pytest.mark.parametrize('kind', ['ScoreKDHead', 'BoxKDHead'])
def test_levels_without_a_teacher_are_told_once(kind, monkeypatch):
    told = []
    monkeypatch.setattr(
        'mmgor.dense_heads.levels.print_log',
        lambda text, **_: told.append(text),
    )
    student, teacher = detector(), detector()
    bound(dict(type=kind), student, teacher)
    assert told == []
    teacher.bbox_head.prior_generator.strides[3:] = [(256, 256), (512, 512)]
    bound(dict(type=kind), student, teacher)
    (text,) = told
    assert text.startswith(f'{kind}: ') and "[8, 16, 32] are in 'big'" in text


def test_teachers_without_a_common_stride():
    student, teacher = detector(), detector()
    other = [(3, 3), (6, 6), (12, 12), (24, 24), (48, 48)]
    teacher.bbox_head.prior_generator.strides = other
    message = r"strides \[8, 16, 32, 64, 128\], teacher 'big' of \[3, 6, 12"
    with pytest.raises(ValueError, match=message):
        bound(SCORES, student, teacher)
    two = detector()
    two.bbox_head.prior_generator.strides = [(8, 8), *other[1:]]
    three = detector()
    three.bbox_head.prior_generator.strides = [*other[:4], (16, 16)]
    with pytest.raises(ValueError, match=r'levels of strides \[8\], teacher'):
        bound(SCORES, student, two, three)


def test_unbound_head_is_an_error():
    with pytest.raises(RuntimeError, match='was not bound'):
        MODELS.build(LOGITS)(None, [])


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(loss_weight=0), 'loss_weight must be positive, got 0'),
        (dict(temperature=0.0), 'temperature must be positive'),
        (dict(foreground_gamma=-1), 'foreground_gamma must be at least 0'),
        (dict(loss_weight=float('inf')), 'must be positive, got inf'),
        (dict(fusion='median'), "unknown fusion 'median'; expected one of"),
        (dict(fusion='learned'), "fusion='learned' needs several .* got one"),
        (
            dict(fusion='confidence', teacher='a'),
            r"fusion='confidence' needs several .* got \['a'\]",
        ),
        (dict(teacher=['a', 'a']), 'a list of different names'),
        (dict(teacher=[]), r'teacher=\[\]; expected a name'),
        (dict(teacher=3), 'teacher=3; expected a name'),
        (dict(teacher=[['a']]), 'a list of different names'),
    ],
)
@pytest.mark.parametrize('kind', ['LogitKDHead', 'ScoreKDHead'])
def test_bad_class_head(kind, cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type=kind, **cfg))


def test_a_module_that_is_no_head_is_an_error():
    with pytest.raises(ValueError, match='does not tell how it classifies'):
        bound(dict(LOGITS, student_tap='neck'), detector(), detector())
    with pytest.raises(ValueError, match='cannot read the outputs of FPN'):
        bound(dict(SCORES, student_tap='neck'), detector(), detector())


def test_a_refused_head_is_not_bound():
    head = MODELS.build(LOGITS)
    with pytest.raises(ValueError, match='unknown tap'):
        head.student_tap = 'nek'
        head.bind(detector(), [])
    with pytest.raises(RuntimeError, match='was not bound'):
        head(None, [])
