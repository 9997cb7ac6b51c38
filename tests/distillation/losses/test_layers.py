import pytest
import torch

from mmgor.distillation.losses.layers import relative_error


def test_by_hand():
    """Two channels of means 2 and 10, so the variances' sum is 2 + 8."""
    teacher = torch.tensor([[1.0, 3.0], [8.0, 12.0]]).view(1, 2, 1, 2)
    student = teacher + torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    got = relative_error([(student, teacher)])
    assert got.item() == pytest.approx((2 * 1 + 2 * 4) / (2 + 8))


def test_the_calls_of_a_layer_are_summed():
    """As for a head that runs on several levels; the larger one counts more,
    and each has its own means."""
    first = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)  # spread 2
    second = torch.tensor([9.0, 9.0, 9.0, 17.0]).view(1, 1, 2, 2)  # 48
    got = relative_error([(first + 1, first), (second, second)])
    assert got.item() == pytest.approx(2 / (2 + 48))


def test_channels_of_a_linear_layer_are_last():
    teacher = torch.tensor([[0.0, 5.0], [4.0, 5.0]])
    got = relative_error([(teacher + 1, teacher)], channel_axis=-1)
    assert got.item() == pytest.approx(4 / 8)


def test_a_constant_teacher():
    teacher = torch.ones(1, 1, 2, 2)
    assert relative_error([(teacher + 3, teacher)]).item() == 4 * 9
    assert relative_error([(teacher, teacher)]).item() == 0
