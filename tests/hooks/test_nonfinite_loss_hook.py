"""A bad step changes no weight, no buffer and no state of the optimizer."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmgor.hooks import (
    GoRWeightHook,
    NonFiniteLossHook,
    nonfinite_loss_hook,
)
from mmgor.registry import MODELS


class Values(Dataset):
    """One number per image; some are not finite."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([1.0, 2.0]) * self.values[index])


class Stock(BaseModel):
    """A detector with batch norm and without anything of mmgor."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)
        self.states = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss_cls=self.linear(self.norm(inputs)).square().mean())


class Distance(Stock):
    """Its loss may be infinite, but its gradients are always finite."""

    def forward(self, inputs, data_samples=None, mode='loss'):
        kept = inputs.nan_to_num(3.0, 3.0, 3.0)
        distance = (self.linear(self.norm(kept)) - inputs).abs().mean()
        return dict(loss_bbox=distance)


class Counting(Stock):
    """Counts by assignment, so its buffer is a new tensor each time."""

    def __init__(self):
        super().__init__()
        self.register_buffer('seen', torch.zeros(()))

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.seen = self.seen + 1
        return super().forward(inputs)


class Game(Stock):
    """A student with a distillation loss that is sometimes not finite."""

    def __init__(self, init_iters):
        super().__init__()
        self.gor_weighting = MODELS.build(
            dict(type='GoRWeighting', init_iters=init_iters)
        )

    def map_classes(self, classes):
        """It has no KD heads that would care."""

    def class_teachers(self):
        return []

    def forward(self, inputs, data_samples=None, mode='loss'):
        kept = inputs.nan_to_num(3.0)
        task = self.linear(self.norm(kept)).square().mean() + kept.mean()
        kd = (self.linear(kept) * inputs.mean()).square().mean()
        return self.gor_weighting(dict(loss_cls=task), dict(loss_kd_a=kd))


class Recorder(NonFiniteLossHook):
    """Remembers the model's state after every iteration."""

    def after_train_iter(self, runner, *args, **kwargs):
        super().after_train_iter(runner, *args, **kwargs)
        state = runner.model.state_dict()
        runner.model.states.append({k: v.clone() for k, v in state.items()})


def train(
    tmp_path,
    values,
    max_consecutive=10,
    accumulate=1,
    hooks=(),
    make=Stock,
    **wrapper,
):
    torch.manual_seed(0)
    model = make()
    hook = Recorder(max_consecutive)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Values(values),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1),
            clip_grad=dict(max_norm=1.0),
            accumulative_counts=accumulate,
            paramwise_cfg=dict(
                custom_keys={'gor_weighting.': dict(decay_mult=0.0)}
            ),
        )
        | wrapper,
        custom_hooks=[hook, *hooks],
        default_hooks=dict(checkpoint=None),
        experiment_name=f'{tmp_path.name}{len(values)}',
        default_scope='mmdet',
        log_level='ERROR',
    )
    runner.train()
    return model.states


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_bad_step_leaves_weights_and_buffers(tmp_path, bad):
    states = train(tmp_path, [1.0, 2.0, bad, 1.0, 3.0, 4.0])
    assert same(states[0], states[1])
    assert not same(states[1], states[2])
    assert all(torch.isfinite(v).all() for v in states[2].values())
    clean = train(tmp_path, [1.0, 2.0, 3.0, 4.0])
    assert same(states[2], clean[1])


def test_an_infinite_loss_with_finite_gradients_is_skipped_too(tmp_path):
    batch = dict(inputs=torch.tensor([[math.inf, 1.0], [1.0, 2.0]]))
    model = Distance()
    loss = model(**batch)['loss_bbox']
    loss.backward()
    assert loss.isinf() and model.linear.weight.grad.isfinite().all()
    states = train(
        tmp_path, [1.0, 2.0, math.inf, 1.0, 3.0, 4.0], make=Distance
    )
    assert same(states[0], states[1])
    clean = train(tmp_path, [1.0, 2.0, 3.0, 4.0], make=Distance)
    assert same(states[2], clean[1])


def test_a_buffer_that_is_assigned_goes_back(tmp_path):
    states = train(
        tmp_path, [1.0, 2.0, math.nan, 1.0, 3.0, 4.0], make=Counting
    )
    assert [state['seen'].item() for state in states] == [1, 1, 2]


@pytest.mark.parametrize('init_iters', [1, 20])
def test_a_bad_step_leaves_the_game(tmp_path, init_iters):
    """In the balanced start the forward pass sets the thetas, after it the
    hook moves them; the optimizer never does."""

    def play(values):
        hooks = [GoRWeightHook(theta_lr=0.1)]
        return train(
            tmp_path, values, hooks=hooks, make=lambda: Game(init_iters)
        )

    states = play([1.0, 2.0, math.nan, 1.0, 3.0, 4.0, 2.0, 2.0])
    assert same(states[0], states[1])
    clean = play([1.0, 2.0, 3.0, 4.0, 2.0, 2.0])
    assert same(states[2], clean[1]) and same(states[3], clean[2])
    theta = 'gor_weighting.theta_task'
    assert not torch.equal(clean[1][theta], clean[2][theta])


def test_a_bad_step_leaves_no_gradient_to_the_thetas():
    """If a loss scaler skips the optimizer's step, no hook takes it."""
    model = Game(20)
    told = []
    runner = SimpleNamespace(
        model=model, iter=0, logger=SimpleNamespace(warning=told.append)
    )
    hook = NonFiniteLossHook()
    hook.before_train_iter(runner)
    inputs = torch.tensor([[1.0, 2.0], [math.nan, 1.0]])
    _, outputs = model.parse_losses(model(inputs))
    hook.after_train_iter(runner, 0, outputs=outputs)
    assert "non-finite ['loss'" in told[0]
    assert model.gor_weighting.take_gradient() is None


def test_a_bad_step_of_another_rank_is_undone_here_too(monkeypatch):
    """If a loss scaler skips the step, this rank's loss does not show it."""
    told = []
    model = Stock()
    runner = SimpleNamespace(
        model=model, iter=0, logger=SimpleNamespace(warning=told.append)
    )
    hook = NonFiniteLossHook()
    hook.before_train_iter(runner)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    outputs = dict(
        loss=model(torch.tensor([[1.0, 2.0], [3.0, 1.0]]))['loss_cls']
    )
    assert not same(kept, model.state_dict())  # batch norm has seen it

    def largest(value, op):
        assert op == 'max'
        value.fill_(1)

    monkeypatch.setattr('mmengine.dist.all_reduce', largest)
    hook.after_train_iter(runner, 0, outputs=outputs)
    assert same(kept, model.state_dict()) and hook.consecutive == 1
    assert 'or loss of another rank' in told[0]


def test_accumulation_with_one_bad_part_skips_the_whole_step(tmp_path):
    values = [1.0, 2.0, math.nan, 1.0, 3.0, 4.0, 5.0, 6.0]
    states = train(tmp_path, values, accumulate=2)
    assert torch.equal(states[0]['linear.weight'], states[1]['linear.weight'])
    assert all(torch.isfinite(v).all() for v in states[-1].values())
    assert not same(states[1], states[3])


def test_an_average_of_buffers_stays_finite(tmp_path):
    """As in YOLOX's recipe, in which EMAHook comes before normal hooks."""
    ema = EMAHook(update_buffers=True, momentum=0.5)
    ema.priority = 49
    train(tmp_path, [1.0, 2.0, math.nan, 1.0, 3.0, 4.0], hooks=[ema])
    assert all(v.isfinite().all() for v in ema.ema_model.state_dict().values())


def test_it_stops_when_bad_steps_persist(tmp_path):
    told = r"finite in 2 steps in a row .* iteration 3: \['loss', 'loss_cls'\]"
    with pytest.raises(RuntimeError, match=told):
        train(tmp_path, [1.0, 2.0, *[math.nan] * 4], max_consecutive=2)


def test_a_good_step_starts_the_count_anew(tmp_path):
    values = [math.nan, 1.0, 1.0, 2.0, math.nan, 1.0]
    assert len(train(tmp_path, values, max_consecutive=2)) == 3


class Breaks(Stock):
    """The second call breaks a tensor; the loss stays finite."""

    def __init__(self, name, value):
        super().__init__()
        self.input_quantizer = nn.Module()
        self.input_quantizer.log_scale = nn.Parameter(torch.tensor([0.0, -30]))
        self.input_quantizer.register_buffer('high', torch.ones(2))
        self.calls, self.name, self.value = 0, name, value

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.calls += 1
        if self.calls == 2:
            state = self.state_dict(keep_vars=True)
            state[self.name].data[0] = self.value
        return super().forward(inputs)


@pytest.mark.parametrize(
    'name, value, told',
    [
        ('norm.running_mean', math.nan, 'is not finite'),
        ('norm.running_var', math.inf, 'is not finite'),
        ('input_quantizer.log_scale', 80.0, r'range of 5\.54e\+34'),
        ('input_quantizer.high', 1e30, r'range of 1e\+30'),
    ],
)
def test_a_broken_tensor_behind_a_finite_loss(tmp_path, name, value, told):
    with pytest.raises(RuntimeError, match=f'{name}.*{told}'):
        train(tmp_path, [1.0, 2.0] * 4, make=lambda: Breaks(name, value))


def test_a_very_small_step_is_not_broken(tmp_path):
    """A channel of zeros gets one."""
    name = 'input_quantizer.log_scale'
    states = train(tmp_path, [1.0, 2.0] * 4, make=lambda: Breaks(name, -90.0))
    assert len(states) == 4


def test_a_broken_weight_is_named_instead_of_the_learning_rate(tmp_path):
    with pytest.raises(RuntimeError, match=r'broken: linear\.bias is not'):
        train(
            tmp_path,
            [1.0, 2.0] * 4,
            max_consecutive=2,
            make=lambda: Breaks('linear.bias', math.nan),
        )


class Taught(Stock):
    """Its teacher has a broken weight."""

    def __init__(self):
        super().__init__()
        big = nn.Linear(2, 1)
        nn.init.constant_(big.weight, math.nan)
        self.teachers = dict(big=SimpleNamespace(is_built=True, model=big))

    def forward(self, inputs, data_samples=None, mode='loss'):
        kd = self.teachers['big'].model(inputs).mean()
        return dict(loss_kd=kd) | super().forward(inputs)


def test_a_broken_teacher_is_named(tmp_path):
    told = r"\['loss', 'loss_kd'\].*broken: teachers\.big: weight is not"
    with pytest.raises(RuntimeError, match=told):
        train(tmp_path, [1.0, 2.0] * 4, max_consecutive=2, make=Taught)


class Overflown(Hook):
    """Adam never moves this weight again, and it stays finite."""

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 1:
            optimizer = runner.optim_wrapper.optimizer
            state = optimizer.state[runner.model.linear.weight]
            state['exp_avg_sq'][0, 0] = math.inf


def test_a_broken_state_of_the_optimizer_is_named(tmp_path):
    told = r"the optimizer's exp_avg_sq of linear\.weight is not finite"
    adam = dict(type='AdamW', lr=0.1, weight_decay=0.1)
    with pytest.raises(RuntimeError, match=told):
        train(tmp_path, [1.0] * 8, hooks=[Overflown()], optimizer=adam)


class Spoilt(Stock):
    """The gradients of some calls are not finite, the losses are."""

    def __init__(self, *spoilt):
        super().__init__()
        self.spoilt, self.calls = spoilt, 0

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.calls += 1
        losses = super().forward(inputs)
        if self.calls in self.spoilt:
            losses['loss_cls'].register_hook(lambda g: g * math.inf)
        return losses


@pytest.fixture
def scaling(monkeypatch):
    """mmengine's AmpOptimWrapper without a GPU; what the hook logs."""
    told = []
    patch = partial(monkeypatch.setattr, amp_optimizer_wrapper)
    patch('is_cuda_available', lambda: True)
    patch('GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    monkeypatch.setattr(MMLogger, 'info', lambda _, text: told.append(text))
    return told


SCALED = dict(type='AmpOptimWrapper', dtype='bfloat16')


def skipped(told):
    return [text for text in told if 'loss scaler' in text]


def test_steps_that_a_loss_scaler_skips_are_in_the_log(tmp_path, scaling):
    scale = dict(init_scale=8.0)
    states = train(
        tmp_path,
        [1.0, 2.0] * 3,
        make=lambda: Spoilt(2),
        loss_scale=scale,
        **SCALED,
    )
    weights = [state['linear.weight'] for state in states]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert skipped(scaling) == [
        'iteration 2: the loss scaler skipped this step, since a gradient '
        'was not finite; its scale is now 4.'
    ]


@pytest.mark.parametrize('scale', [math.nan, math.inf])
def test_a_scale_that_trains_nothing_any_more(tmp_path, scaling, scale):
    told = rf'skipped 1 steps in a row .* iteration 1\).*is {scale:g};'
    start = dict(init_scale=scale)
    with pytest.raises(RuntimeError, match=told):
        train(tmp_path, [1.0, 2.0] * 3, loss_scale=start, **SCALED)


def test_a_loss_scaler_that_finds_no_scale(tmp_path, scaling, monkeypatch):
    monkeypatch.setattr(nonfinite_loss_hook, 'MOST_SKIPPED', 3)
    told = 'skipped 3 steps in a row .* iteration 5'
    with pytest.raises(RuntimeError, match=told):
        train(
            tmp_path,
            [1.0, 2.0] * 9,
            make=lambda: Spoilt(1, 3, 4, 5, 6),
            **SCALED,
        )
    assert len(skipped(scaling)) == 4


def test_bad_argument():
    with pytest.raises(ValueError, match='at least 1, got 0'):
        NonFiniteLossHook(0)
