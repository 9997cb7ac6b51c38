"""The game arrives: any optimizer, any length, clipping and warm-up."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmgor.hooks.gor_weight_hook import (
    GoRWeightHook,
    default_theta_lr,
    map_classes,
)
from mmgor.hooks.weight_plot import (
    PANELS,
    _teacher_keys,
    plot_weight_curves,
    read_scalars,
)
from mmgor.registry import MODELS

PARAMWISE = dict(custom_keys={'gor_weighting.': dict(decay_mult=0.0)})


class Numbers(Dataset):
    metainfo: dict = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


class Toy(BaseModel):
    """Losses of constant size that change by a factor once."""

    def __init__(self, change_at, factor):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.gor_weighting = MODELS.build(
            dict(type='GoRWeighting', init_iters=2)
        )
        self.teachers = {}
        self.change_at, self.factor, self.step = change_at, factor, 0
        self.distances = []

    def map_classes(self, classes):
        """It has no KD heads that would care."""

    def class_teachers(self):
        return []

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.step += 1
        kd = 3.0 if self.step <= self.change_at else 3.0 * self.factor
        # Value constant, gradient large: clipping must not slow the game.
        pull = 1e3 * (self.weight - self.weight.detach()).sum()
        out = self.gor_weighting(
            dict(loss_cls=0.5 + pull), dict(loss_kd_a=kd + pull)
        )
        game = self.gor_weighting
        rest = math.log(kd / game.units[1].item())
        self.distances.append(abs(game.theta_kd.item() - rest))
        return out


class Constant(Toy):
    """Losses, and gradients at the features, of a constant ratio of 10."""

    def __init__(self, weighting):
        super().__init__(change_at=0, factor=1.0)
        self.gor_weighting = MODELS.build(weighting)
        self.shares = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        shared = 2 * self.weight
        pull = 1 + 1e-3 * (shared - shared.detach()).sum()
        out = self.gor_weighting(
            dict(loss_cls=0.5 * pull), dict(loss_kd_a=5.0 * pull), [shared]
        )
        kd = out['loss_kd_a'].item()
        self.shares.append(kd / (kd + out['loss_cls'].item()))
        return out


class Falling(Constant):
    """The distillation loss halves in every call."""

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.step += 1
        pull = 1 + 1e-3 * (self.weight - self.weight.detach()).sum()
        kd = 2.0**-self.step
        return self.gor_weighting(
            dict(loss_cls=0.5 * pull), dict(loss_kd_a=kd * pull)
        )


def run(
    tmp_path,
    optimizer,
    iters,
    clip=None,
    accumulate=1,
    model=None,
    load_from=None,
    resume=False,
    **hook,
):
    model = model or Toy(change_at=iters // 2, factor=0.5)
    runner = Runner(
        model=model,
        load_from=load_from,
        resume=resume,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Numbers(),
            sampler=dict(type='InfiniteSampler', shuffle=False),
            batch_size=1,
            num_workers=0,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=optimizer,
            clip_grad=clip,
            accumulative_counts=accumulate,
            paramwise_cfg=PARAMWISE,
        ),
        param_scheduler=dict(
            type='LinearLR',
            start_factor=0.001,
            by_epoch=False,
            begin=0,
            end=iters,
        ),
        custom_hooks=[dict(type='GoRWeightHook', **hook)],
        default_hooks=dict(
            checkpoint=None, logger=dict(type='LoggerHook', interval=1)
        ),
        experiment_name=f'toy{abs(hash((str(tmp_path), iters)))}',
        default_scope='mmdet',
        log_level='ERROR',
    )
    runner.train()
    return runner, model


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
def test_theta_arrives_within_a_tenth_of_the_run(
    tmp_path, optimizer, iters, clip
):
    """The KD loss halves in mid-run: ln 2 = 0.69 nats to go."""
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
    """Ten to one, they end at equal shares: ln 10 = 2.3 nats to go."""
    model = Constant(dict(type=f'{name}Weighting'))
    run(tmp_path, optimizer, 100, dict(max_norm=0.1), model=model)
    assert model.shares[0] == pytest.approx(10 / 11)
    arrived = torch.tensor(model.shares[10:])
    # GradNorm moves about its target by a step size, at most 0.3.
    assert (arrived - 0.5).abs().max() < 0.17
    assert abs(arrived.mean() - 0.5) < 0.06


def test_famo_moves_by_a_step_of_its_own(tmp_path):
    """Adam's first step is the rate itself: 0.025, as in the paper's code.
    The task loss did not fall, so that it gains share."""
    model = Falling(dict(type='FAMOWeighting'))
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    run(tmp_path, optimizer, 2, model=model)
    theta = model.gor_weighting.theta().detach()
    torch.testing.assert_close(theta, torch.tensor([-0.025, 0.025]))


@pytest.mark.parametrize('steps, rate', [(100, 0.3), (600, 0.1), (1e5, 0.02)])
def test_the_default_rate_follows_from_the_length_of_the_run(steps, rate):
    weighting = MODELS.build(dict(type='GoRWeighting'))
    assert default_theta_lr(weighting, steps) == pytest.approx(rate)


def test_weights_of_another_game_start_a_new_one(tmp_path):
    """Its thetas, counters and unit stay behind; a resumed run keeps them."""
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


def test_scalars_and_curves_are_written(tmp_path):
    run(tmp_path, dict(type='SGD', lr=0.01, weight_decay=1e-4), 20)
    scalars = next(tmp_path.glob('*/vis_data/scalars.json'))
    records = read_scalars(scalars)
    assert len(records) == 20
    assert {'gor_w_task', 'gor_w_kd', 'gor_theta_kd', 'gor_distance'} <= set(
        records[0]
    )
    assert (tmp_path / 'gor_weights.png').stat().st_size > 10000


@pytest.mark.parametrize('accumulate', [4, 16])
def test_accumulated_gradients_slow_nothing(tmp_path, accumulate):
    optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    _, model = run(tmp_path, optimizer, 1000, accumulate=accumulate)
    assert max(model.distances[600:]) < 0.25
    assert model.distances[-1] < 0.1


def test_thetas_take_no_part_in_clipping(tmp_path):
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    _, model = run(tmp_path, optimizer, 8)
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


def test_classes_are_mapped_and_gaps_are_told():
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
    assert mapped == [['a', 'b', 'c']]
    assert "'big' lacks 1 of 3 classes" in told[0] and "['c']" in told[0]
    assert "class names of teacher 'mute'" in told[1]


def test_hook_without_a_gor_model():
    runner = SimpleNamespace(model=nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="model of type 'GoRDetector'"):
        GoRWeightHook().before_train(runner)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(theta_lr=0.0), 'theta_lr must be positive'),
        (dict(gradient_interval=-1), 'gradient_interval >= 0'),
        (dict(verify_teacher=-1), 'verify_teacher must be at least 0'),
        (dict(collapse=0.7), 'collapse < 0.5'),
    ],
)
def test_bad_hook_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GoRWeightHook(**kwargs)


def outputs(weights, raw):
    values = (*weights, *raw)
    names = ('gor_w_task', 'gor_w_kd', 'gor_raw_task', 'gor_raw_kd')
    return dict(zip(names, map(torch.tensor, values)))


def test_a_small_weight_of_a_large_loss_is_no_collapse():
    said = []
    runner = SimpleNamespace(
        iter=6, logger=SimpleNamespace(warning=said.append)
    )
    GoRWeightHook().after_train_iter(
        runner, 0, outputs=outputs((1.0, 1e-6), (0.5, 5e5))
    )
    assert said == []


@pytest.mark.parametrize('weights', [(2.0, 1e-6), (float('nan'), 1.0)])
def test_collapse_and_nan_are_said_once(weights):
    said = []
    runner = SimpleNamespace(
        iter=6, logger=SimpleNamespace(warning=said.append)
    )
    hook = GoRWeightHook()
    for _ in range(2):
        hook.after_train_iter(runner, 0, outputs=outputs(weights, (1.0, 1.0)))
    assert len(said) == 1 and 'iteration 7' in said[0]


def warnings_of(tmp_path, monkeypatch, weighting, thetas=(0.0, 0.0)):
    """Warnings of a run of two iterations that name a collapse."""
    model = Constant(weighting)
    for parameter, theta in zip(model.gor_weighting.parameters(), thetas):
        parameter.data.fill_(theta)
    said = []
    monkeypatch.setattr(
        MMLogger, 'warning', lambda self, text, *_: said.append(text)
    )
    optimizer = dict(type='SGD', lr=0.01, weight_decay=1e-4)
    run(tmp_path, optimizer, 2, model=model)
    return [text for text in said if 'only the other is trained' in text]


@pytest.mark.parametrize('name', ['task_weight', 'kd_weight'])
def test_a_weight_set_by_hand_to_zero_is_no_collapse(
    tmp_path, monkeypatch, name
):
    weighting = {'type': 'FixedWeighting', name: 0.0}
    assert warnings_of(tmp_path, monkeypatch, weighting) == []


@pytest.mark.parametrize(
    'weighting, thetas',
    [
        (dict(type='UncertaintyWeighting'), (0.0, 30.0)),  # e^-30
        (dict(type='MGDAWeighting'), ()),  # computed, 0 of parallel gradients
        (dict(type='FixedWeighting', task_weight=1e-6), ()),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_other_small_weights_are_a_collapse(
    tmp_path, monkeypatch, weighting, thetas
):
    (text,) = warnings_of(tmp_path, monkeypatch, weighting, thetas)
    assert 'at iteration 1:' in text


@pytest.mark.parametrize('raw', [(math.inf, 1.0), (1.0, math.inf)])
def test_a_weight_of_zero_hides_no_infinite_loss(raw):
    said = []
    runner = SimpleNamespace(
        iter=6, logger=SimpleNamespace(warning=said.append)
    )
    hook = GoRWeightHook()
    hook._by_hand = True
    hook.after_train_iter(runner, 0, outputs=outputs((0.0, 1.0), (1.0, 1.0)))
    assert said == []
    hook.after_train_iter(runner, 0, outputs=outputs((0.0, 1.0), raw))
    assert len(said) == 1 and 'not finite' in said[0]


def test_plot_without_gor_keys(tmp_path):
    with pytest.raises(ValueError, match='no gor_'):
        plot_weight_curves([dict(loss=1.0)], tmp_path / 'x.png')


def test_broken_scalars_name_the_line(tmp_path):
    path = tmp_path / 'scalars.json'
    good = json.dumps(dict(gor_w_kd=1.0, step=1))
    for broken in ('{oops', '5', '{"gor_w_kd": 1.0}'):
        path.write_text(f'{good}\n{broken}\n')
        with pytest.raises(ValueError, match=r'line 2: expected .* a step'):
            read_scalars(path)


def test_every_teacher_has_a_curve():
    records = [dict(gor_w_kd=1.0, gor_w_kd_atss=0.4, gor_raw_kd_atss=2.0)]
    weights, losses, thetas = (panel[3] for panel in PANELS[:3])
    assert _teacher_keys(records, weights) == {'gor_w_kd_atss': 'atss'}
    assert _teacher_keys(records, losses) == {'gor_raw_kd_atss': 'atss'}
    assert _teacher_keys(records, thetas) == {}
