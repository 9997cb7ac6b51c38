import pytest
import torch

from mmgor.distillation.class_lists import (
    class_index,
    take_classes,
    to_student_labels,
)
from mmgor.distillation.levels import (
    common_strides,
    crop_to_common,
    map_strides,
    pick_strides,
)


@pytest.mark.parametrize(
    'size, sides, want',
    [
        ((320, 320), (40, 20, 10, 5, 3), [8, 16, 32, 64, 128]),
        ((64, 64), (8, 4, 2, 1, 1), [8, 16, 32, 64, 128]),
        ((416, 416), (13, 26, 52), [32, 16, 8]),
        ((300, 300), (38, 19, 10, 5), [8, 16, 32, 64]),
        ((64, 64), (32,), [2]),
        ((75, 75), (9, 4, 2, 1), [8, 16, 32, 64]),
    ],
)
def test_strides_come_from_sizes(size, sides, want):
    assert map_strides(size, [(n, n) for n in sides]) == want


def test_height_and_width_both_tell():
    assert map_strides((32, 256), [(1, 8), (1, 4)]) == [32, 64]


def test_levels_are_found_by_stride():
    assert common_strides([8, 16, 32], [4, 32, 16], 'big') == [16, 32]
    assert pick_strides('abc', [4, 32, 16], [16, 32]) == ['c', 'b']
    with pytest.raises(ValueError, match=r"\[8\], teacher 'big' of \[16\]"):
        common_strides([8], [16], 'big')


def test_maps_are_cut_at_the_right_and_below():
    a, b = torch.arange(6.0).view(1, 2, 3), torch.arange(6.0).view(1, 3, 2)
    a, b = crop_to_common(a, b)
    assert a.tolist() == [[[0, 1], [3, 4]]]
    assert b.tolist() == [[[0, 1], [2, 3]]]


def test_classes_are_found_by_name():
    found = class_index(['cat', 'fox', 'dog'], ['dog', 'cow', 'cat'], 'big')
    assert found == [2, -1, 0]
    index = torch.tensor(found)
    x = torch.tensor([[0.0, 1.0, 2.0]])
    assert take_classes(x, index)[0, [0, 2]].tolist() == [2, 0]
    labels, known = to_student_labels(torch.tensor([0, 1, 2]), index)
    assert known.tolist() == [True, False, True]
    assert labels[known].tolist() == [2, 0]


def test_no_class_in_common():
    with pytest.raises(ValueError, match=r"knows none.*\['fox'\], got \['co"):
        class_index(['fox'], ['cow'], 'big')
