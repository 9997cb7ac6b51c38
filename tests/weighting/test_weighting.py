"""GoRWeighting, and what all balancers inherit, against values by hand."""

import math

import pytest
import torch

from mmgor.registry import MODELS
from mmgor.weighting import functional as F
from mmgor.weighting import total_loss
from mmgor.weighting.gor import FORMS


def gor(**kwargs):
    return MODELS.build(dict(type='GoRWeighting', **kwargs)).train()


def step(weighting, task, kd):
    return weighting(
        dict(loss_cls=torch.tensor(task)), dict(loss_kd_a=torch.tensor(kd))
    )


def set_theta(weighting, task, kd):
    """Leave the balanced start, with these thetas."""
    weighting.count.fill_(10**6)
    weighting.calls.fill_(10**6)
    weighting.theta_task.data.fill_(task)
    weighting.theta_kd.data.fill_(kd)


def test_zero_sum_weights_by_hand():
    theta = torch.tensor([math.log(1.0), math.log(3.0)])
    # w = 1, 1/3: u = 2 * 1 / (4/3) and 2 * (1/3) / (4/3).
    torch.testing.assert_close(
        F.zero_sum_weights(theta), torch.tensor([1.5, 0.5])
    )


def test_theta_gradient_by_hand():
    theta = torch.tensor([0.0, math.log(2.0)])
    strength = torch.tensor([0.25, 2.0])
    # 1 - 0.25 and 1 - 2 / 2.
    torch.testing.assert_close(
        F.theta_gradient(theta, strength), torch.tensor([0.75, 0.0])
    )
    assert F.theta_gradient(theta, torch.tensor([1e9, 1.0]))[0] == -1
    assert F.theta_gradient(theta, torch.tensor([math.nan, 1.0]))[0] == 0


def test_total_loss_takes_lists_and_leaves_accuracy_out():
    losses = dict(
        loss_cls=[torch.tensor(1.0), torch.tensor([2.0, 4.0])],
        loss_bbox=torch.tensor(0.5),
        acc=torch.tensor(99.0),
    )
    assert total_loss(losses).item() == 4.5


def test_no_loss_is_an_error():
    with pytest.raises(ValueError, match=r"expected a loss.*\['acc'\]"):
        total_loss(dict(acc=torch.tensor(1.0)))


def test_exactly_two_trainable_scalars():
    for form in FORMS:
        parameters = dict(gor(form=form).named_parameters())
        assert set(parameters) == {'theta_task', 'theta_kd'}
        assert all(p.shape == () for p in parameters.values())


def test_first_call_starts_balanced():
    weighting = gor()
    out = step(weighting, 0.5, 8.0)
    assert weighting.units.tolist() == [0.5, 8.0]
    assert weighting.theta().tolist() == [0, 0]
    # Its weighted value is twice the task loss at the start: 2 * 0.5.
    assert out['gor_w_task'].item() == pytest.approx(1)
    assert out['gor_w_kd'].item() == pytest.approx(2 / 16)
    assert out['loss_kd_a'].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    'form, start, task, kd',
    [('barrier', 1.0, 2.0, 4.0), ('ratio', 2.0, 1.0, 4.0)],
)
def test_weights_as_the_losses_fall(form, start, task, kd):
    """The weights of barrier grow; ratio keeps the task loss's weight."""
    weighting = gor(form=form)
    out = step(weighting, 0.5, 8.0)
    assert (out['gor_w_task'], out['gor_w_kd']) == (1, start / 16)
    # With losses of 0.5 / 2 and 8 / 4 the thetas rest at w = 2 and 4. The KD
    # loss's weight is also divided by 16, the ratio of the units.
    set_theta(weighting, -math.log(2.0), -math.log(4.0))
    out = step(weighting, 0.25, 2.0)
    assert out['gor_w_task'].item() == pytest.approx(task)
    assert out['gor_w_kd'].item() == pytest.approx(kd / 16)
    out['loss_gor'].backward()
    for theta in weighting.parameters():
        assert theta.grad.item() == pytest.approx(0, abs=1e-6)


def test_an_unusable_first_value_leaves_no_trace():
    weighting = gor()
    step(weighting, 0.5, math.nan)
    for _ in range(19):
        step(weighting, 0.5, 1e-3)
    assert weighting.mean[1].item() == pytest.approx(1e-3)
    assert weighting.count.tolist() == [19, 19]
    assert weighting.units.tolist() == pytest.approx([0.5, 1e-3])


@pytest.mark.parametrize('late', [0.0, math.nan])
@pytest.mark.parametrize('calls', [1, 25])
def test_the_balanced_start_lasts_until_both_losses_are_usable(late, calls):
    weighting = gor()
    for _ in range(calls):
        out = step(weighting, 2.09, late)
        assert (out['gor_w_task'], out['gor_w_kd']) == (1, 2)
        with torch.no_grad():  # what the hook may do in between
            weighting.theta_task += 0.3
    out = step(weighting, 2.09, 0.19)
    assert out['gor_w_task'].item() == pytest.approx(1)
    assert out['gor_w_kd'].item() == pytest.approx(22)
    assert weighting.theta().tolist() == [0, 0]


def test_gradients_are_taken_as_their_mean():
    weighting = gor()
    assert weighting.take_gradient() is None
    set_theta(weighting, 0.0, 0.0)
    for kd in (0.5, 0.7):
        step(weighting, 0.25, kd)
    torch.testing.assert_close(
        weighting.take_gradient(), torch.tensor([0.75, 0.4])
    )
    assert weighting.take_gradient() is None


def test_zero_sum_values_and_gradients_by_hand():
    weighting = gor(form='zero_sum')
    set_theta(weighting, 0.0, math.log(3.0))
    task = torch.tensor(0.5, requires_grad=True)
    kd = torch.tensor(3.0, requires_grad=True)
    out = weighting(dict(loss_cls=task), dict(loss_kd_a=kd))
    total = out['loss_cls'] + out['loss_kd_a'] + out['loss_gor']
    assert total.item() == pytest.approx(1.5 * 0.5 + 0.5 * 3.0)
    assert out['loss_gor'].item() == 0
    total.backward()
    assert task.grad.item() == pytest.approx(1.5)
    assert kd.grad.item() == pytest.approx(0.5)
    assert weighting.theta_task.grad.item() == pytest.approx(1 - 0.5)
    assert weighting.theta_kd.grad.item() == pytest.approx(0, abs=1e-6)


def test_barrier_values_and_gradients_by_hand():
    weighting = gor(form='barrier')
    weighting.units.copy_(torch.tensor([2.0, 0.5]))
    set_theta(weighting, 0.0, math.log(3.0))
    out = step(weighting, 0.5, 6.0)
    assert out['loss_cls'].item() == pytest.approx(0.5)
    # w = 1 / 3, times the ratio of the units, 2 / 0.5.
    assert out['loss_kd_a'].item() == pytest.approx(6.0 / 3.0 * 4.0)
    assert out['loss_gor'].item() == 0
    out['loss_gor'].backward()
    assert weighting.theta_task.grad.item() == pytest.approx(1 - 0.5 / 2.0)
    # 1 - 12 / 3, bounded.
    assert weighting.theta_kd.grad.item() == -1


def test_gradient_form_plays_over_gradient_norms():
    weighting = gor(form='gradient')
    shared = torch.tensor([3.0, 4.0], requires_grad=True)
    task = (shared * torch.tensor([0.6, 0.8])).sum()
    kd = 10 * shared.sum()
    out = weighting(dict(loss_cls=task), dict(loss_kd_a=kd), [shared])
    norms = torch.tensor([1.0, 10 * math.sqrt(2)])
    torch.testing.assert_close(weighting.mean, norms)
    torch.testing.assert_close(weighting.units, norms)
    assert out['gor_grad_ratio'].item() == pytest.approx(1.0)
    assert out['gor_grad_cosine'].item() == pytest.approx(
        1.4 / math.sqrt(2), rel=1e-5
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('ratio', [0.01, 1.0, 100.0])
def test_units_of_the_kd_loss_do_not_matter(form, ratio):
    """The student's gradient keeps its direction and its size."""

    def student_gradient(factor):
        weighting = gor(form=form, init_iters=2)
        for call in range(4):
            x = torch.tensor([1.0, 2.0], requires_grad=True)
            task = x[0] * (0.3 + 0.01 * call)
            kd = x[1] ** 2 * ratio * factor
            out = weighting(dict(loss_cls=task), dict(loss_kd_a=kd), [x])
        (out['loss_cls'] + out['loss_kd_a']).backward()
        return x.grad

    torch.testing.assert_close(
        student_gradient(1000.0), student_gradient(1.0), rtol=1e-3, atol=0
    )


def test_measuring_gradients_for_the_log_does_not_change_the_thetas():
    def play(look):
        weighting = gor(form='gradient', init_iters=1, gradient_interval=3)
        for call in range(6):
            x = torch.tensor([1.0, 2.0], requires_grad=True)
            weighting.measure_gradients = look and call % 2 == 1
            task, kd = x.sum() * (1 + call), (x**2).sum()
            weighting(dict(loss_cls=task), dict(loss_kd_a=kd), [x])
        return weighting.state_dict()

    plain, watched = play(False), play(True)
    assert all(torch.equal(plain[key], watched[key]) for key in plain)


def test_thetas_keep_within_their_limit():
    weighting = gor()
    set_theta(weighting, 25.0, -25.0)
    out = step(weighting, 1.0, 1.0)
    assert weighting.theta().tolist() == [20, -20]
    assert out['gor_w_kd'].item() == pytest.approx(2 * math.exp(40))


def test_an_unusable_loss_leaves_the_last_strength():
    weighting = gor()
    step(weighting, 0.5, 8.0)
    for task, kd in ((0.7, math.nan), (math.inf, 9.0), (0.0, 9.0)):
        step(weighting, task, kd)
    weighting.eval()
    step(weighting, 0.1, 0.2)
    assert weighting.strength.tolist() == [0.5, 8.0]


def test_lists_and_other_keys_keep_their_form():
    weighting = MODELS.build(dict(type='FixedWeighting', kd_weight=0.5))
    out = weighting(
        dict(loss_cls=[torch.tensor(1.0)] * 2, acc=torch.tensor(7.0)),
        dict(loss_kd_a=torch.tensor(4.0)),
    )
    assert [x.item() for x in out['loss_cls']] == [1.0, 1.0]
    assert out['acc'].item() == 7.0
    assert out['loss_kd_a'].item() == 2.0
    assert 'loss_gor' not in out


def test_diagnostics_are_not_optimised():
    out = step(gor(), 1.0, 2.0)
    extra = [key for key in out if key.startswith('gor_')]
    assert len(extra) == 7
    assert not any('loss' in key for key in extra)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_non_finite_losses_leave_theta_alone(bad):
    weighting = gor()
    step(weighting, 1.0, 2.0)
    before = [p.item() for p in weighting.parameters()]
    mean = weighting.mean.clone()
    out = step(weighting, 1.0, bad)
    out['loss_gor'].backward()
    assert weighting.theta_kd.grad.item() == 0
    assert weighting.theta_kd.item() == pytest.approx(before[1])
    assert weighting.mean[1] == mean[1]


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(type='GoRWeighting', form='nash'), "unknown GoR form 'nash'"),
        (dict(type='GoRWeighting', init_iters=0), 'init_iters must'),
        (dict(type='FixedWeighting', kd_weight=-1), 'kd_weight must'),
    ],
)
def test_bad_arguments(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_gradients_need_shared_features():
    weighting = gor(form='gradient')
    assert weighting.needs_gradients()
    assert not gor(form='gradient').eval().needs_gradients()
    x = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match='no shared features'):
        weighting(dict(loss_cls=x), dict(loss_kd_a=x), [])
    with pytest.raises(
        ValueError, match=r"tensors, as from.*'neck', got a li"
    ):
        weighting(dict(loss_cls=x), dict(loss_kd_a=x), [x, [x]])
