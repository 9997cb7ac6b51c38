"""The length of a training, and what counts epochs with it."""

import pytest
from mmengine.config import Config

from mmgor.conversion.schedule import (
    base_hooks,
    epochs_of,
    scaled_schedule,
    scheduler_hook,
)
from mmgor.conversion.source import assignment

BASE = dict(
    train_cfg=dict(
        type='EpochBasedTrainLoop',
        max_epochs=300,
        val_interval=10,
        dynamic_intervals=[(280, 1)],
    ),
    param_scheduler=[
        dict(type='LinearLR', by_epoch=False, begin=0, end=1000),
        dict(type='CosineAnnealingLR', begin=150, end=300, T_max=150),
        dict(type='MultiStepLR', end=300, milestones=[200, 201]),
    ],
    custom_hooks=[
        dict(type='EMAHook', momentum=0.1),
        dict(type='PipelineSwitchHook', switch_epoch=280),
    ],
)


@pytest.fixture
def student(tmp_path):
    """The base config with 30 epochs, as mmengine reads it."""
    Config(BASE).dump(tmp_path / 'base.py')
    entries = scaled_schedule(Config(BASE), 30)
    entries['custom_hooks'] = base_hooks(Config(BASE), 30)
    text = assignment('_base_', 'base.py')
    text += ''.join(assignment(k, v) for k, v in entries.items())
    (tmp_path / 'student.py').write_text(text)
    return Config.fromfile(tmp_path / 'student.py')


def test_everything_that_counts_epochs_is_scaled(student):
    assert student.train_cfg == dict(
        type='EpochBasedTrainLoop',
        max_epochs=30,
        val_interval=1,
        dynamic_intervals=[(28, 1)],
    )
    warmup, cosine, steps = student.param_scheduler
    assert warmup == dict(BASE['param_scheduler'][0], end=100)
    assert (cosine.begin, cosine.end, cosine.T_max) == (15, 30, 15)
    assert steps.milestones == [20]
    assert student.custom_hooks[0] == BASE['custom_hooks'][0]
    assert student.custom_hooks[1].switch_epoch == 28


@pytest.mark.parametrize('epochs', [1, 2, 5])
def test_schedulers_without_an_epoch_left_are_dropped(epochs):
    base = dict(
        train_cfg=dict(max_epochs=300),
        param_scheduler=[  # as in YOLOX
            dict(type='QuadraticWarmupLR', begin=0, end=5),
            dict(type='CosineAnnealingLR', begin=5, end=285, T_max=285),
            dict(type='ConstantLR', begin=285, end=300),
        ],
    )
    entries = scaled_schedule(Config(base), epochs)
    scope = dict(_base_=Config(base))
    written = [eval(one, scope) for one in entries['param_scheduler']]
    assert written[0] == dict(base['param_scheduler'][0], end=1)
    assert all(one['begin'] < one['end'] <= epochs for one in written)


def test_a_config_that_counts_iterations_is_refused():
    cfg = Config(dict(train_cfg=dict(max_iters=90000)))
    assert epochs_of(cfg) is None
    with pytest.raises(ValueError, match='counts iterations'):
        scaled_schedule(cfg, 3)


@pytest.mark.parametrize('epochs', [0, -1, 2.5])
def test_no_such_length(epochs):
    with pytest.raises(ValueError, match='--epochs'):
        scaled_schedule(Config(BASE), epochs)


def test_hooks_of_the_base_are_kept_but_for_those_that_build_layers():
    assert base_hooks(Config({}), 30) == []
    assert base_hooks(Config(BASE), None) == ['*_base_.custom_hooks']
    hooks = [dict(type='SwitchToDeployHook'), dict(type='EMAHook')]
    cfg = Config(dict(BASE, custom_hooks=hooks))
    assert base_hooks(cfg, None) == ['_base_.custom_hooks[1]']


def test_hooks_in_the_place_of_schedulers():
    hook = dict(type='Warmup', max_epochs=300, warmup_bias_lr=0.1)
    cfg = Config(dict(BASE, default_hooks=dict(param_scheduler=hook)))
    assert scheduler_hook(cfg, 30) == dict(max_epochs=30, warmup_bias_lr=0.0)
    assert scheduler_hook(cfg, None) == dict(warmup_bias_lr=0.0)
    assert scheduler_hook(Config(BASE), 30) == {}


def ends(epochs, iterations):
    """The end of the warm-up of 1,000 iterations, and that of the training."""
    entries = scaled_schedule(Config(BASE), epochs, iterations)
    warmup = entries.get('param_scheduler', ['end=1000'])[0]
    return warmup.partition('end=')[2].rstrip(')'), 'train_cfg' in entries


def test_a_warm_up_takes_at_most_a_tenth_of_a_short_training():
    assert ends(None, None) == ('1000', False)
    assert ends(None, 37) == ('1000', False)  # 11,100 iterations in all
    assert ends(None, 10) == ('300', False)
    assert ends(30, None) == ('100', True)
    assert ends(3, 37) == ('10', True)  # as 11 of 111, but scaled by 1/100
    assert ends(3, 20) == ('6', True)
    assert ends(600, None) == ('', True)  # a longer one keeps it
