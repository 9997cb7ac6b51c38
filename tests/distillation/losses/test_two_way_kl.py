"""Losses that combine the forward and the reverse KL divergence."""

import torch

from mmgor.distillation.losses.two_way_kl import balanced, entropy_aware


def test_balanced_favours_reverse_where_the_student_is_uncertain():
    forward, reverse = torch.tensor([4.0, 4.0]), torch.tensor([1.0, 1.0])
    student, teacher = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    got = balanced(forward, reverse, student, teacher, 0.75)
    # 3/4 * 1 + 1/4 * 4 and 3/4 * 4 + 1/4 * 1.
    assert got.tolist() == [1.75, 3.25]
    mean = balanced(forward, reverse, student, teacher, 0.5)
    assert mean.tolist() == [2.5, 2.5]


def test_entropy_aware_adds_forward_where_the_teacher_is_uncertain():
    forward, reverse = torch.tensor([4.0, 4.0]), torch.tensor([1.0, 1.0])
    got = entropy_aware(forward, reverse, torch.tensor([0.4, 0.6]), 0.5)
    assert got.tolist() == [1.0, 5.0]
