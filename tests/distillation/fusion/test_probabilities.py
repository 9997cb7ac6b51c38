"""Fusion of class probabilities: weights, gradients, and their fixed point."""

import math

import pytest
import torch

from mmgor.distillation.fusion.probabilities import (
    TeacherFusion,
    certainty,
    covered_classes,
)


def test_certainty_by_hand():
    # Of the largest probability: 0.9 of (0.9, 0.5); H in nats.
    p = torch.tensor([[0.9, 0.5], [0.1, 0.05], [0.5, 0.2], [1, 0], [0, 0]])
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    sure = 1 - entropy / math.log(2)
    want = torch.tensor([sure, sure, 0, 1, 1])
    torch.testing.assert_close(certainty(p), want)


def test_certainty_near_one_half_is_not_rounding_noise():
    # 1 - H / ln 2 = d^2 / (2 ln 2) + O(d^4), p = (1 + d) / 2.
    d = torch.tensor([[1e-3]])
    want = 1e-6 / (2 * math.log(2))
    assert certainty((1 + d) / 2).item() == pytest.approx(want, rel=1e-3)
    assert certainty(((1 + d) / 2).half()).dtype == torch.float32


def test_mean_is_the_plain_mean():
    p = torch.rand(3, 2, 5, 4)
    fused, weight = TeacherFusion('mean', 3)(p)
    torch.testing.assert_close(fused, p.mean(0))
    torch.testing.assert_close(weight, torch.full((3,), 1 / 3))


def test_mean_over_the_teachers_that_know_a_class():
    p = torch.tensor([[[0.2, 0.4, torch.nan]], [[0.6, torch.nan, torch.nan]]])
    known = torch.tensor([[True, True, False], [True, False, False]])
    for kind in ('mean', 'learned'):
        fused, weight = TeacherFusion(kind, 2)(p, known)
        torch.testing.assert_close(fused, torch.tensor([[0.4, 0.4, 0.0]]))
        # (1/2, 1) and (1/2, 0) for the two classes that a teacher knows.
        torch.testing.assert_close(weight, torch.tensor([0.75, 0.25]))
    assert covered_classes(known).tolist() == [True, True, False]


def test_confidence_by_hand():
    p = torch.tensor(
        [
            [[0.9, 0.3], [0.5, 0.5], [1.0, 0.0], [0.5, 0.1]],
            [[0.5, 0.1], [0.5, 0.1], [0.2, 0.0], [0.0, 0.0]],
        ]
    )
    # Certainties (c, 0), (0, 0), (1, c(0.2)) and (0, 1).
    c = 1 + (0.2 * math.log(0.2) + 0.8 * math.log(0.8)) / math.log(2)
    first = torch.tensor([1, 0.5, 1 / (1 + c), 0])
    fused, weight = TeacherFusion('confidence', 2)(p)
    want = first[:, None] * p[0] + (1 - first)[:, None] * p[1]
    torch.testing.assert_close(fused, want)
    mean = first.mean()
    torch.testing.assert_close(weight, torch.stack([mean, 1 - mean]))


def test_confidence_depends_on_known_classes_only():
    # The first teacher is certain only of class 1, which it does not know.
    p = torch.tensor([[[0.5, 1.0]], [[0.1, 0.2]]])
    known = torch.tensor([[True, False], [True, True]])
    fused, weight = TeacherFusion('confidence', 2)(p, known)
    torch.testing.assert_close(fused, torch.tensor([[0.1, 0.2]]))
    torch.testing.assert_close(weight, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize('kind', ['mean', 'confidence', 'learned'])
def test_known_of_ones_equals_the_default(kind):
    torch.manual_seed(0)
    p = torch.rand(3, 2, 5, 4)
    fusion = TeacherFusion(kind, 3)
    want = fusion(p)
    for value, other in zip(fusion(p, torch.ones(3, 4).bool()), want):
        torch.testing.assert_close(value, other)
    assert want[0].shape == (2, 5, 4)
    assert want[1].sum().item() == pytest.approx(1)


@pytest.mark.parametrize('kind', ['mean', 'confidence', 'learned'])
def test_one_location_without_an_axis(kind):
    p = torch.rand(3, 4)
    fusion = TeacherFusion(kind, 3)
    for value, other in zip(fusion(p), fusion(p[:, None])):
        torch.testing.assert_close(value, other.view(value.shape))


@pytest.mark.parametrize('kind', ['mean', 'confidence', 'learned'])
def test_one_teacher_passes_through(kind):
    p = torch.rand(1, 5, 4)
    fused, weight = TeacherFusion(kind, 1)(p)
    torch.testing.assert_close(fused, p[0])
    torch.testing.assert_close(weight, torch.ones(1))


def learned(*weights):
    fusion = TeacherFusion('learned', len(weights))
    fusion.logits.data = torch.tensor(weights).log()
    return fusion


def test_learned_weights_are_a_softmax_with_gradient():
    fusion = learned(0.75, 0.25)
    p = torch.tensor([[[0.8]], [[0.4]]])
    fused, weight = fusion(p)
    torch.testing.assert_close(fused, torch.tensor([[0.7]]))
    assert not weight.requires_grad
    fused.sum().backward()
    # w_i (p_i - fused)
    want = torch.tensor([0.75 * 0.1, 0.25 * -0.3])
    torch.testing.assert_close(fusion.logits.grad, want)


def test_a_class_known_to_the_weakest_teacher_only():
    fusion = learned(1.0, 1e-30)
    known = torch.tensor([[True, False], [True, True]])
    fused, weight = fusion(torch.full((2, 3, 2), 0.5), known)
    torch.testing.assert_close(fused, torch.full((3, 2), 0.5))
    torch.testing.assert_close(weight, torch.tensor([0.5, 0.5]))
    fused.sum().backward()
    assert torch.isfinite(fusion.logits.grad).all()


def test_regularizer_is_zero_with_the_gradient_of_the_kl():
    fusion = learned(0.75, 0.25)
    kd_loss = torch.tensor(3.0, requires_grad=True)
    value = fusion.regularizer(kd_loss)
    assert value.item() == 0
    value.backward()
    # dKL/dz_i = w_i (ln w_i - sum_j w_j ln w_j)
    mean = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    slope = 3 * 0.75 * (math.log(0.75) - mean)
    torch.testing.assert_close(
        fusion.logits.grad, torch.tensor([slope, -slope])
    )
    assert kd_loss.grad is None


def test_only_learned_weights_are_regularised():
    fusion = TeacherFusion('mean', 2)
    assert not list(fusion.parameters())
    value = fusion.regularizer(torch.tensor(3.0, requires_grad=True))
    assert (value.item(), value.requires_grad) == (0, False)


def descend(losses, regularized=True, steps=400):
    """Weights at which gradient descent on sum_i w_i L_i comes to rest. Losses
    are relative to the first, so that one learning rate suits all scales."""
    fusion = TeacherFusion('learned', len(losses))
    optimizer = torch.optim.SGD(fusion.parameters(), 1.0 / losses[0].item())
    for _ in range(steps):
        kd_loss = (fusion.logits.softmax(0) * losses).sum()
        term = fusion.regularizer(kd_loss) if regularized else 0
        optimizer.zero_grad()
        (kd_loss + term).backward()
        optimizer.step()
    return fusion.logits.detach().softmax(0)


@pytest.mark.parametrize('scale', [1.0, 1e-3])
def test_two_teachers_both_keep_weight(scale):
    # The equation of the docstring at w = (3/4, 1/4), d = ln 3, e^d = 3.
    d = math.log(3)
    losses = scale * torch.tensor([1.0, 1 + 4 * d / (4 - d)])
    rest = descend(losses)
    torch.testing.assert_close(
        rest, torch.tensor([0.75, 0.25]), atol=1e-4, rtol=0
    )
    # Without the regulariser the better teacher gets all the weight.
    assert descend(losses, regularized=False)[1] < 2e-3


def test_weights_of_equal_teachers_and_of_three_teachers():
    torch.testing.assert_close(
        descend(torch.tensor([2.0, 2.0])), torch.tensor([0.5, 0.5])
    )
    losses = torch.tensor([1.0, 2.0, 4.0])
    rest = descend(losses)
    want = (-losses / (rest * losses).sum()).softmax(0)
    torch.testing.assert_close(rest, want, atol=1e-4, rtol=0)


def test_errors():
    with pytest.raises(ValueError, match=r"unknown fusion 'max'; expected"):
        TeacherFusion('max', 2)
    with pytest.raises(ValueError, match=r'num_teachers must .*, got 0'):
        TeacherFusion('mean', 0)
    fusion = TeacherFusion('mean', 2)
    with pytest.raises(ValueError, match=r'2 teachers, got \(3, 4, 5\)'):
        fusion(torch.rand(3, 4, 5))
    with pytest.raises(ValueError, match=r'known of shape \(2, 5\)'):
        fusion(torch.rand(2, 4, 5), torch.ones(5, 2).bool())
    with pytest.raises(ValueError, match=r'torch\.float32'):
        fusion(torch.rand(2, 4, 5), torch.ones(2, 5))
