"""Classes of student and teacher, matched by name."""

import pytest
import torch

from mmgor.distillation.teachers.class_mapping import (
    class_index,
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
