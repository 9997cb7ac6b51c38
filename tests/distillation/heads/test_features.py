import pytest
import torch

from mmgor.registry import MODELS
from tests.support.kd import bound, detector, record, recorded

MSE = dict(type='FeatureMSELoss')


def feature_head(**cfg):
    model = detector()
    cfg = dict(type='FeatureKDHead', **cfg)
    return bound(cfg, model, model)


def test_it_is_the_mean_over_levels_matched_by_stride():
    head = feature_head(student_channels=4, strides=[8, 32], loss=MSE)
    fine, coarse = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 2, 2)
    # The teacher's pyramid starts at 4 and ends with 32.
    pyramid = [torch.full((1, 4, n, n), float(n)) for n in (16, 8, 4, 2)]
    got = head(recorded(None, (fine, coarse)), [recorded(None, pyramid)])
    assert got.item() == (8**2 + 2**2) / 2


def test_a_further_padded_teacher_is_cropped():
    head = feature_head(student_channels=1, strides=[8], loss=MSE)
    wide = torch.zeros(1, 1, 8, 12)
    wide[..., 8:] = 99.0
    student = recorded(None, torch.ones(1, 1, 8, 8))
    assert head(student, [recorded(None, wide, size=(64, 96))]).item() == 1


def test_a_teacher_with_a_tap_in_no_module():
    with pytest.raises(ValueError, match=r"not teacher_tap='detections'; ex"):
        feature_head(student_channels=1, teacher_tap='detections')


def test_connectors_exist_from_construction():
    head = MODELS.build(
        dict(type='FeatureKDHead', student_channels=4, teacher_channels=6)
    )
    assert set(head.state_dict()) == {
        f'connectors.levels.{i}.{p}'
        for i in range(5)
        for p in ('weight', 'bias')
    }
    same = MODELS.build(dict(type='FeatureKDHead', student_channels=4))
    assert not same.state_dict()


def test_only_student_and_connectors_get_gradients():
    head = feature_head(
        student_channels=2,
        teacher_channels=3,
        strides=[16],
        loss=dict(type='CWDLoss', temperature=2.0),
    )
    student = torch.randn(1, 2, 4, 4, requires_grad=True)
    teacher = torch.randn(1, 3, 4, 4)
    head(recorded(None, student), [recorded(None, teacher)]).backward()
    assert student.grad.abs().sum() > 0
    assert head.connectors.levels[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(student_channels=[4, 4]), 'student_channels has 2 entries'),
        (dict(student_channels=4, loss='PKDLoss'), "loss='PKDLoss' does not"),
        (
            dict(student_channels=4, loss=dict(type='ForwardKL')),
            'does not compare feature maps; expected PKDLoss',
        ),
        (
            dict(student_channels=4, strides=[]),
            r'strides must be a list .*\[\]',
        ),
        (dict(student_channels=4, strides=None), 'strides must be a .*None'),
        (dict(student_channels=4, strides=[8, 8]), 'different powers of two'),
        (dict(student_channels=4, strides=[12]), r'strides=\[12\]; expected'),
        (dict(student_channels=0), 'student_channels must be an integer of'),
        (
            dict(student_channels='16'),
            "must be an integer of at least 1, got '16'",
        ),
        (
            dict(student_channels=4, teacher_channels=4.0),
            'teacher_channels must be .* got 4.0',
        ),
        (
            dict(student_channels=4, teacher=['a', 'b']),
            r"learns from one teacher, got \['a', 'b'\]",
        ),
    ],
)
def test_bad_feature_head(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='FeatureKDHead', **cfg))


def test_unknown_taps_are_named():
    with pytest.raises(ValueError, match="'nek' in the teacher 'big'"):
        feature_head(student_channels=4, teacher_tap='nek')


def test_strides_and_channels_are_checked():
    student = detector()
    features = record(student, 'neck', 128)
    head = feature_head(student_channels=16, strides=[4, 8])
    message = r'no level of stride \[4\] in the student, whose tap gives .*8, '
    with pytest.raises(ValueError, match=message):
        head(features, [features])
    head = feature_head(student_channels=16, teacher_channels=99)
    with pytest.raises(
        ValueError, match=r'Set teacher_channels=\[(16(, )?){5}'
    ):
        head(features, [features])
    pyramid = [torch.zeros(1, c, n, n) for c, n in ((128, 8), (256, 4))]
    head = feature_head(student_channels=4, strides=[8, 16])
    with pytest.raises(ValueError, match=r'Set student_channels=\[128, 256\]'):
        head(recorded(None, pyramid), [])


def test_a_tap_without_feature_maps_is_an_error():
    head = feature_head(student_channels=16, student_tap='bbox_head')
    student = detector()
    with pytest.raises(ValueError, match='tap of the student does not give f'):
        head(record(student), [record(student, 'neck')])
