"""Classes of student and teacher, matched by name."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmgor.distillation.teachers.class_mapping import (
    class_index,
    count_classes,
    take_classes,
    to_student_labels,
)


def test_classes_are_found_by_name():
    found = class_index(['cat', 'fox', 'dog'], ['dog', 'cow', 'cat'], 'big')
    assert found == [2, -1, 0]
    index = torch.tensor(found)
    x = torch.tensor([[0.0, 1.0, 2.0]])
    assert take_classes(x, index)[0, [0, 2]].tolist() == [2, 0]
    labels, known = to_student_labels(torch.tensor([0, 1, 2]), index)
    assert known.tolist() == [True, False, True]
    assert labels[known].tolist() == [2, 0]


def test_a_class_that_is_twice_in_a_list():
    message = r"classes \['a'\] appear more .* of teacher 'big', \['a"
    with pytest.raises(ValueError, match=message):
        class_index(['a', 'b'], ['a', 'b', 'a'], 'big')
    message = r"classes \['a'\] appear .* of the student's data, \['a', 'a'"
    with pytest.raises(ValueError, match=message):
        class_index(['a', 'a', 'b'], ['a', 'b'], 'big')


def test_no_class_in_common():
    with pytest.raises(ValueError, match=r"knows none.*\['fox'\], got \['co"):
        class_index(['fox'], ['cow'], 'big')


def head(num_classes):
    layer = nn.Identity()
    layer.num_classes = num_classes
    return layer


def test_classes_are_counted_in_the_box_head_of_every_family():
    cascade = nn.ModuleList([head(3), head(4)])
    two_stage = SimpleNamespace(roi_head=SimpleNamespace(bbox_head=head(5)))
    cascaded = SimpleNamespace(roi_head=SimpleNamespace(bbox_head=cascade))
    assert count_classes(SimpleNamespace(bbox_head=head(2))) == 2
    assert count_classes(two_stage) == 5
    assert count_classes(cascaded) == 4  # the last stage gives the labels
    assert count_classes(SimpleNamespace()) is None
