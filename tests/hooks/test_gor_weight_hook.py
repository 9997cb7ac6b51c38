"""The thetas arrive with any optimizer, length, clipping and warm-up."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmgor.hooks.gor_weight_hook import GoRWeightHook, map_classes
from mmgor.registry import HOOKS, MODELS
from mmgor.weighting.theta_steps import (
    default_theta_lr,
    move_thetas,
    theta_step,
)
from tests.support.toy_game import Constant, Falling, Toy, run


@pytest.mark.parametrize('iters', [100, 1000])
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.1)])
@pytest.mark.parametrize(
    'optimizer',
    [
        dict(type='SGD', lr=0.01, weight_decay=1e-4),
        dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
        dict(type='AdamW', lr=1e-3, weight_decay=0.05),
        dict(type='RAdam', lr=1e-3, weight_decay=0.05),
    ],
    ids=lambda o: o['type'] + str(o.get('momentum', '')),
)
@pytest.mark.slow
def test_theta_arrives_within_a_tenth_of_the_run(
    tmp_path, optimizer, iters, clip
):
    """The KD loss halves in mid-run, so theta_kd has ln 2 = 0.69 to go."""
    _, model = run(tmp_path, optimizer, iters, clip)
    start = model.distances[2 : iters // 2]
    assert max(start) < 0.05
    after = model.distances[iters // 2 + iters // 10 :]
    assert max(after) < 0.25
    assert after[-1] < 0.1


@pytest.mark.parametrize('name', ['Uncertainty', 'GradNorm'])
@pytest.mark.parametrize(
    'optimizer',
    [
        dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
        dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    ],
    ids=lambda o: o['type'],
)
def test_other_balancers_thetas_arrive(tmp_path, optimizer, name):
    """From ten to one to equal shares: the thetas have ln 10 = 2.3 to go."""
    model = Constant(dict(type=f'{name}Weighting'))
    run(tmp_path, optimizer, 100, dict(max_norm=0.1), model=model)
    assert model.shares[0] == pytest.approx(10 / 11)
    arrived = torch.tensor(model.shares[10:])
    # GradNorm moves around its target by one step size, at most 0.3.
    assert (arrived - 0.5).abs().max() < 0.17
    assert abs(arrived.mean() - 0.5) < 0.06


def test_famo_moves_by_a_step_of_its_own(tmp_path):
    """Adam's first step is the rate itself: 0.025, as in the paper's code.
    The task loss did not fall, so it gains share."""
    model = Falling(dict(type='FAMOWeighting'))
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    run(tmp_path, optimizer, 2, model=model)
    theta = model.gor_weighting.theta().detach()
    torch.testing.assert_close(theta, torch.tensor([-0.025, 0.025]))


@pytest.mark.parametrize('steps, rate', [(100, 0.3), (600, 0.1), (1e5, 0.02)])
def test_the_default_rate_follows_from_the_length_of_the_run(steps, rate):
    weighting = MODELS.build(dict(type='GoRWeighting'))
    assert default_theta_lr(weighting, steps) == pytest.approx(rate)


@pytest.mark.parametrize(
    'name, highest',
    [('GoR', 2), ('Uncertainty', 1), ('RevisedUncertainty', 0.5)],
)
def test_thetas_come_to_rest_only_below_the_highest_rate(name, highest):
    """The KD loss is small, and falls once, after the balanced start."""
    moves = []
    for share in (0.95, 1.05):
        weighting = MODELS.build(dict(type=f'{name}Weighting')).train()
        assert weighting.highest_theta_lr == highest
        step = theta_step(weighting, share * highest)
        for iteration in range(400):
            kd = 1e-4 if iteration < 20 else 5e-5
            before = weighting.theta_kd.item()
            weighting(
                dict(loss_cls=torch.tensor(1.0)),
                dict(loss_kd=torch.tensor(kd)),
            )
            step()
        moves.append(abs(weighting.theta_kd.item() - before))
    assert moves[0] < 1e-3 and moves[1] > 0.1


def test_a_balancer_with_a_steeper_gradient_has_a_lower_rate(tmp_path):
    model = Constant(dict(type='UncertaintyWeighting'))
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    message = (
        r'theta_lr with UncertaintyWeighting must be in \(0, 1\), got 1.0'
    )
    with pytest.raises(ValueError, match=message):
        run(tmp_path, optimizer, 2, model=model, theta_lr=1.0)


def test_load_from_brings_no_thetas_along_and_resume_does(tmp_path):
    """The same holds for the counters and units."""
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    runner, first = run(tmp_path / 'a', optimizer, 10)
    first.weight.data.fill_(7.0)
    file = str(tmp_path / 'last.pth')
    runner.save_checkpoint(str(tmp_path), 'last.pth')
    new = Constant(dict(type='GoRWeighting', init_iters=2))
    run(tmp_path / 'b', optimizer, 4, model=new, load_from=file)
    assert new.weight.item() == pytest.approx(7.0, abs=0.1)
    assert new.gor_weighting.count.tolist() == [4, 4]
    assert new.shares[0] == pytest.approx(2 / 3)  # the start's
    resumed = Toy(change_at=10, factor=0.5)
    resumed.step = 10
    run(
        tmp_path / 'c',
        optimizer,
        12,
        model=resumed,
        load_from=file,
        resume=True,
    )
    assert resumed.gor_weighting.count.tolist() == [12, 12]


@pytest.mark.parametrize('accumulate', [4, 16])
def test_thetas_arrive_with_accumulated_gradients(tmp_path, accumulate):
    optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    _, model = run(tmp_path, optimizer, 1000, accumulate=accumulate)
    assert max(model.distances[600:]) < 0.25
    assert model.distances[-1] < 0.1


def test_thetas_take_no_part_in_clipping():
    model = Toy(change_at=8, factor=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    move_thetas(model.gor_weighting, optimizer, 0.1)
    loss, _ = model.parse_losses(model(torch.ones(1)))
    loss.backward()
    grads = [p.grad for p in model.gor_weighting.parameters()]
    assert all(g is not None and not g.any() for g in grads)


def runner_with(classes):
    dataset = SimpleNamespace(metainfo=dict(classes=classes))
    return SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=dataset),
        logger=SimpleNamespace(warning=lambda *_: None),
    )


def test_classes_are_mapped_and_missing_ones_are_named():
    told, mapped = [], []
    runner = runner_with(['a', 'b', 'c'])
    runner.logger.warning = told.append
    model = SimpleNamespace(
        class_teachers=lambda: [
            SimpleNamespace(name='big', classes=('b', 'a')),
            SimpleNamespace(name='mute', classes=None),
        ],
        map_classes=mapped.append,
    )
    map_classes(runner, model)
    assert mapped == [('a', 'b', 'c')]
    assert "'big' lacks 1 of 3 classes" in told[0] and "['c']" in told[0]
    assert "class names of teacher 'mute'" in told[1]


def test_hook_without_a_gor_model():
    runner = SimpleNamespace(model=nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="model of type 'GoRDetector'"):
        GoRWeightHook().before_train(runner)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(theta_lr=0.0), r'theta_lr must be in \(0, 2\)'),
        (dict(theta_lr=2.0), r'\(0, 2\), got 2.0.*never come to rest'),
        (dict(gradient_interval=-1), 'gradient_interval must be'),
        (dict(num_verify_images=-1), 'num_verify_images must be'),
        (dict(collapse=0.7), r'collapse must be in \(0, 0.5\)'),
    ],
)
def test_bad_hook_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GoRWeightHook(**kwargs)


@pytest.mark.parametrize('number', [0, 200])
def test_the_old_name_of_num_verify_images_is_refused(number):
    message = f'expected num_verify_images={number}'
    with pytest.raises(TypeError, match=message):
        HOOKS.build(dict(type='GoRWeightHook', verify_teacher=number))
