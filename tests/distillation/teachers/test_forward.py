"""The steps of a teacher's forward pass."""

from collections import OrderedDict, namedtuple

import torch
from torch import nn

from mmgor.distillation import Recorder
from mmgor.distillation.teachers.forward import (
    float32_copy,
    in_original_image,
    unlabelled_samples,
)
from tests.support.kd import one_teacher
from tests.support.models import make_batch

Levels = namedtuple('Levels', ['boxes', 'labels'])


def test_every_container_keeps_its_type_and_gets_float32_copies():
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    single, labels = torch.tensor([0.1]), torch.tensor([3])
    output = dict(
        levels=Levels([half], (labels, None)),
        ordered=OrderedDict(b=single, a='name'),
    )
    got = float32_copy(output)
    assert type(got) is dict and list(got) == ['levels', 'ordered']
    assert type(got['levels']) is Levels
    assert type(got['levels'].boxes) is list
    assert type(got['levels'].labels) is tuple
    assert type(got['ordered']) is OrderedDict
    assert list(got['ordered']) == ['b', 'a']
    copied = got['levels'].boxes[0]
    assert copied.dtype == torch.float32 and copied.tolist() == [1.5, -2.0]
    got['ordered']['b'].zero_()
    assert single.item() != 0  # it shares no memory with the output
    assert got['levels'].labels[0] is labels
    assert got['levels'].labels[1] is None and got['ordered']['a'] == 'name'


class NamedNeck(nn.Module):
    """A neck that returns a named tuple with a dict in it."""

    def __init__(self, neck):
        super().__init__()
        self.neck = neck

    def forward(self, features):
        levels = self.neck(features)
        return Levels(dict(p3=levels[0]), levels[1])


def test_a_tap_may_return_named_tuples_and_dicts(teacher_spec):
    teachers = one_teacher(**teacher_spec)
    teachers.build(torch.device('cpu'))
    model, batch = teachers['big'].model, make_batch()
    model.neck = NamedNeck(model.neck)
    with torch.no_grad(), Recorder(model, ['neck']) as recorder:
        model.extract_feat(batch['inputs'])
    want = recorder['neck']
    got = (
        teachers['big']
        .forward_taps(
            batch['inputs'],
            model.data_preprocessor,
            batch['data_samples'],
            ['neck'],
        )['neck']
        .output
    )
    assert type(got) is Levels
    torch.testing.assert_close(got.boxes['p3'], want.boxes['p3'])
    torch.testing.assert_close(got.labels, want.labels)


def test_samples_for_the_teacher_have_no_ground_truth():
    given = make_batch(side=48)['data_samples']
    samples = unlabelled_samples(given, (64, 96))
    assert len(samples) == 2
    for sample in samples:
        assert 'gt_instances' not in sample
        assert sample.metainfo == dict(
            img_shape=(48, 48),
            ori_shape=(48, 48),
            pad_shape=(64, 96),
            batch_input_shape=(64, 96),
            scale_factor=(1.0, 1.0),
        )


def test_boxes_without_a_border_by_hand():
    """An image of 30 x 20 px at twice its size, with 10 rows above it."""
    meta = dict(
        pad_param=(10, 14, 2, 2), scale_factor=(2.0, 2.0), ori_shape=(20, 30)
    )
    boxes = torch.tensor([[2.0, 10.0, 62.0, 50.0], [0.0, 0.0, 12.0, 70.0]])
    found = in_original_image(boxes, meta)
    assert found.tolist() == [[0, 0, 30, 20], [0, 0, 5, 20]]
