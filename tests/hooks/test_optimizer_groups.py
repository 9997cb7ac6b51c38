"""Some parameters are exempt from weight decay with any constructor."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.config import Config
from mmengine.optim import (
    CosineAnnealingLR,
    DefaultOptimWrapperConstructor,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    OptimWrapper,
    ReduceOnPlateauLR,
)
from torch import nn

from mmgor.hooks.optimizer_groups import (
    check_resume_groups,
    exempt_from_decay,
    exempt_in_runner,
    join_groups,
    rate_factor,
    rates_in_runner,
    scale_rates,
    schedule_groups,
)
from mmgor.weighting import GoRWeighting
from tests.support.toy_game import Toy, run


class ConvNeXt(nn.Module):
    """mmdet's layer decay looks for a class of this name."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, 4, 1)])])


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = ConvNeXt()
        self.reference_points = nn.Linear(2, 2)
        self.reference_points.input_quantizer = nn.Linear(1, 1)
        self.gor_weighting = GoRWeighting()


def settings(optimizer):
    """Learning rate and weight decay of each parameter."""
    return {
        id(p): (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }


def build(constructor, model, **paramwise):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    )
    kind = OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)
    return kind(cfg, paramwise)(model).optimizer


@pytest.mark.parametrize(
    'constructor, paramwise',
    [
        ('DefaultOptimWrapperConstructor', {}),
        # The longer key wins over '_quantizer.'.
        (
            'DefaultOptimWrapperConstructor',
            dict(
                custom_keys={
                    'reference_points': dict(lr_mult=0.1),
                    '_quantizer.': dict(decay_mult=0.0),
                }
            ),
        ),
        # It reads no custom_keys.
        (
            'LearningRateDecayOptimizerConstructor',
            dict(decay_rate=0.9, decay_type='layer_wise', num_layers=6),
        ),
        (
            'LearningRateDecayOptimizerConstructor',
            dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6),
        ),
    ],
)
def test_every_constructor(constructor, paramwise):
    model = Student()
    optimizer = build(constructor, model, **paramwise)
    before = settings(optimizer)
    own = dict(model.gor_weighting.named_parameters())
    quantizer = model.reference_points.input_quantizer
    own |= dict(quantizer.named_parameters())
    exempt_from_decay(optimizer, own, 'these')
    spared = {id(p) for p in own.values()}
    assert any(before[p][1] > 0 for p in spared)
    assert settings(optimizer) == {
        p: (lr, 0.0 if p in spared else decay)
        for p, (lr, decay) in before.items()
    }
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        given = [names[id(p)] for p in group['params']]
        assert group.get('param_names', given) == given
    groups = len(optimizer.param_groups)
    exempt_from_decay(optimizer, own, 'these')
    assert len(optimizer.param_groups) == groups


@pytest.mark.parametrize(
    'schedule, named',
    [
        (False, {}),
        (True, {}),
        (True, dict(constructor='mmengine.DefaultOptimWrapperConstructor')),
        (True, dict(constructor=DefaultOptimWrapperConstructor)),
    ],
)
def test_the_key_of_step_sizes_wins(schedule, named):
    """Also over longer keys, and while a warm-up has begun."""
    model = Student()
    keys = {
        'reference_points': dict(lr_mult=0.1),
        '_quantizer.': dict(lr_mult=5.0),
        'backbone': dict(lr_mult=0.5),
    }
    wrapper = OptimWrapper(
        build('DefaultOptimWrapperConstructor', model, custom_keys=keys)
    )
    schedulers = []
    if schedule:
        schedulers.append(LinearLR(wrapper, start_factor=0.1, end=4))
    warm = 0.1 if schedule else 1.0
    before = settings(wrapper.optimizer)
    cfg = Config(
        dict(optim_wrapper=dict(named, paramwise_cfg=dict(custom_keys=keys)))
    )
    runner = SimpleNamespace(
        cfg=cfg, optim_wrapper=wrapper, param_schedulers=schedulers
    )
    own = {
        name: parameter
        for name, parameter in model.named_parameters()
        if '_quantizer.' in name
    }
    rates_in_runner(runner, own)
    mine = {id(p) for p in own.values()}
    for key, (rate, _) in settings(wrapper.optimizer).items():
        wanted = warm * 5e-4 if key in mine else before[key][0]
        assert rate == pytest.approx(wanted)
    for _ in range(4):
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    rates = settings(wrapper.optimizer)
    assert [rates[key][0] for key in mine] == pytest.approx([5e-4] * 2)


def test_a_frozen_module_keeps_its_step_sizes():
    keys = {'_quantizer.': dict(lr_mult=5.0), 'backbone.conv': dict(lr_mult=0)}
    assert rate_factor('backbone.conv.weight_quantizer.scale', keys) == 1
    assert rate_factor('neck.conv.weight_quantizer.scale', keys) == 1


def test_parameters_of_one_group_get_rates_of_their_own():
    first, second, third = (nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = sgd([first, second, third])
    scale_rates(optimizer, {id(first): 2.0, id(third): 3.0})
    rates = settings(optimizer)
    found = [rates[id(p)][0] for p in (first, second, third)]
    assert found == pytest.approx([0.2, 0.1, 0.3])


def scalars():
    return dict(a=nn.Parameter(torch.ones(())), b=nn.Parameter(torch.ones(())))


def sgd(parameters, **kwargs):
    return torch.optim.SGD([dict(params=parameters, **kwargs)], lr=0.1)


def test_parameters_without_decay_stay_in_their_group():
    mine, other = scalars(), nn.Parameter(torch.ones(1))
    optimizer = sgd([*mine.values(), other])
    exempt_from_decay(optimizer, mine, 'the scalars')
    (group,) = optimizer.param_groups
    assert group['params'] == [*mine.values(), other]


def test_parameters_that_a_constructor_left_out_are_added():
    """mmyolo's constructor looks for weights and biases only."""
    stock, mine = nn.Parameter(torch.ones(1)), scalars()
    optimizer = sgd([stock], weight_decay=0.1, momentum=0.8)
    exempt_from_decay(optimizer, mine, 'the scalars')
    first, own = optimizer.param_groups
    assert first['params'] == [stock]
    assert own['params'] == list(mine.values())
    assert own == dict(first, weight_decay=0, params=own['params'])


@pytest.mark.parametrize(
    'kind, kwargs',
    [
        (LinearLR, dict(start_factor=0.1, end=5)),
        (CosineAnnealingLR, dict(T_max=6)),
        (MultiStepLR, dict(milestones=[2])),
        (OneCycleLR, dict(eta_max=1.0, total_steps=9)),
        (ReduceOnPlateauLR, dict(monitor='loss', patience=0)),
    ],
)
def test_schedulers_follow_new_groups(kind, kwargs):
    weight, theta = (nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = torch.optim.SGD([weight, theta], lr=0.5, weight_decay=0.1)
    wrapper = OptimWrapper(optimizer)
    scheduler = kind(wrapper, **kwargs)
    exempt_from_decay(optimizer, dict(theta=theta), 'the theta')
    schedule_groups(dict(a=[scheduler]))
    schedule_groups([scheduler])
    seen = []
    for _ in range(4):
        wrapper.step()
        scheduler.step(*([dict(loss=1.0)] if 'monitor' in kwargs else []))
        old, new = (group['lr'] for group in optimizer.param_groups)
        assert old == new
        seen.append(new)
    assert len(set(seen)) > 1


def test_groups_of_the_same_settings_are_joined():
    a, b, c, d = (nn.Parameter(torch.ones(1)) for _ in range(4))
    optimizer = torch.optim.SGD(
        [
            dict(params=[a], param_names=['a']),
            dict(params=[b], param_names=['b'], momentum=0.5),
            dict(params=[c], param_names=['c']),
            dict(params=[d], param_names=['d'], momentum=0.5),
        ],
        lr=0.1,
    )
    before = settings(optimizer)
    join_groups(optimizer)
    assert settings(optimizer) == before
    groups = optimizer.param_groups
    assert [g['params'] for g in groups] == [[a, c], [b, d]]
    assert [g['param_names'] for g in groups] == [['a', 'c'], ['b', 'd']]


def test_joined_groups_take_the_same_steps():
    """As a Runner's, one by one, with a schedule and weight decay."""

    def trained(join):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(
            [dict(params=[p], weight_decay=0.1) for p in model.parameters()],
            lr=0.1,
        )
        wrapper = OptimWrapper(optimizer)
        schedulers = [MultiStepLR(wrapper, milestones=[2])]
        runner = SimpleNamespace(
            cfg=Config(), optim_wrapper=wrapper, param_schedulers=schedulers
        )
        if join:
            exempt_in_runner(runner, {}, 'nothing')
            assert len(optimizer.param_groups) == 1
        for _ in range(4):
            wrapper.update_params(model(torch.ones(2, 3)).square().sum())
            schedulers[0].step()
        return [p.detach() for p in model.parameters()]

    for a, b in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize('why', ['constructor', 'optimizer', 'scheduler'])
def test_groups_that_others_count_stay_apart(why):
    """MMYOLO's hook warms up the third group of its own constructor."""

    class ZeroRedundancyOptimizer(torch.optim.SGD):
        """Keeps a second list of its groups."""

    kind = ZeroRedundancyOptimizer if why == 'optimizer' else torch.optim.SGD
    weights = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    wrapper = OptimWrapper(kind([dict(params=[w]) for w in weights], lr=0.1))
    schedulers = []
    if why == 'scheduler':
        schedulers = [ReduceOnPlateauLR(wrapper, monitor='loss')]
    constructor = dict(constructor='YOLOv5OptimizerConstructor')
    cfg = Config(
        dict(optim_wrapper=constructor if why == 'constructor' else {})
    )
    runner = SimpleNamespace(
        cfg=cfg, optim_wrapper=wrapper, param_schedulers=schedulers
    )
    exempt_in_runner(runner, {}, 'nothing')
    assert len(wrapper.optimizer.param_groups) == 3


def test_a_resume_with_other_groups_is_refused():
    weights = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    runner = SimpleNamespace(optim_wrapper=OptimWrapper(sgd(weights)))
    state = torch.optim.SGD([dict(params=[w]) for w in weights]).state_dict()
    with pytest.raises(RuntimeError, match=r'groups of \[3\].*got \[1, 1, 1'):
        check_resume_groups(runner, state)
    check_resume_groups(runner, sgd(weights).state_dict())


def test_a_resumed_run_has_the_same_groups_as_its_file(tmp_path):
    optimizer = dict(type='AdamW', lr=1e-2, weight_decay=0.05)
    model = Toy(change_at=5, factor=0.5)
    runner, _ = run(tmp_path / 'a', optimizer, 12, model=model, paramwise={})
    runner.save_checkpoint(str(tmp_path), 'last.pth')
    model.step = 0
    resumed, _ = run(
        tmp_path / 'b',
        optimizer,
        14,
        model=model,
        load_from=str(tmp_path / 'last.pth'),
        resume=True,
        paramwise={},
    )
    state = resumed.optim_wrapper.optimizer.state_dict()
    decays = [group['weight_decay'] for group in state['param_groups']]
    rates = [group['lr'] for group in state['param_groups']]
    assert decays == [0.05, 0]
    assert rates[0] == rates[1]
    assert [s['step'].item() for s in state['state'].values()] == [14.0] * 3
