"""Changes the optimizer's groups: weight decay spares some parameters, and
the learning rate of step sizes is the one that their own key names. Groups
with the same settings are joined.

The data alone should decide the value of a theta or of a step size's log;
weight decay would pull it to 0. Which setting in a config prevents that
depends on the optimizer's constructor: some have no such setting, some know
weights and biases only, and in others a key of the stock config wins. So the
optimizer is changed after it was built.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmgor.io.checkpoint import RESUME_HINT
from mmgor.io.config_reader import type_name

_STOCK = 'DefaultOptimWrapperConstructor'
# Settings of a group that grow with its learning rate; those after the first
# are of schedulers.
_RATES = {'lr', 'initial_lr', 'max_lr', 'min_lr'}
# One entry per parameter; layer-decay constructors write names, too.
_LISTS = {'params', 'param_names'}
#: Key of ``paramwise_cfg.custom_keys`` for all step sizes.
STEP_SIZES = '_quantizer.'


def rates_in_runner(
    runner: Runner, parameters: dict[str, nn.Parameter]
) -> None:
    """Let the ``lr_mult`` of the key '_quantizer.' hold for all step sizes.

    mmengine takes the longest key that is in a parameter's name, such as
    'reference_points'. A key that freezes (``lr_mult=0``) still wins. Nothing
    changes if the config has no such ``lr_mult``, or a constructor of its
    own.

    Call it once, in ``before_run``, as :func:`exempt_in_runner`.

    Args:
        runner (Runner): If it trains, its optimizer and schedulers are built.
        parameters (dict[str, nn.Parameter]): The step sizes, by name.
    """
    given = _settings_of(runner)
    keys = (given.get('paramwise_cfg') or {}).get('custom_keys') or {}
    if (
        isinstance(runner.optim_wrapper, OptimWrapper)
        and _is_stock(given)
        and 'lr_mult' in keys.get(STEP_SIZES, {})
    ):
        factors = {
            id(parameter): rate_factor(name, keys)
            for name, parameter in parameters.items()
        }
        scale_rates(runner.optim_wrapper.optimizer, factors)
        schedule_groups(runner.param_schedulers)


def _settings_of(runner: Runner) -> dict[str, Any]:
    """``optim_wrapper`` of the config; {} if it was given as an object."""
    cfg = runner.cfg.get('optim_wrapper')
    return cfg if isinstance(cfg, dict) else {}


def _is_stock(settings: dict[str, Any]) -> bool:
    """Whether mmengine's own constructor builds this optimizer."""
    constructor = dict(type=settings.get('constructor', _STOCK))
    return type_name(constructor) == _STOCK


def rate_factor(name: str, custom_keys: dict[str, dict]) -> float:
    """What a step size's learning rate has to be multiplied by, so that it
    follows '_quantizer.' and not a longer key.

    Args:
        name (str): The parameter's name, with '_quantizer.' in it.
        custom_keys (dict[str, dict]): With an ``lr_mult`` for '_quantizer.'.

    Example:
        >>> keys = {'_quantizer.': dict(lr_mult=5.0),
        ...         'reference_points': dict(lr_mult=0.1)}
        >>> rate_factor('reference_points.input_quantizer.scale', keys)
        50.0
    """
    inside = [key for key in custom_keys if key in name]
    longest = min(inside, key=lambda key: (-len(key), key))
    given = custom_keys[longest].get('lr_mult', 1.0)
    return custom_keys[STEP_SIZES]['lr_mult'] / given if given else 1.0


def scale_rates(
    optimizer: torch.optim.Optimizer, factors: dict[int, float]
) -> None:
    """Multiply learning rates, now and at the start of all schedules.

    Args:
        optimizer (Optimizer): As built; its groups are changed in place.
        factors (dict[int, float]): ``id`` of parameters -> factor; 1 for all
            others.
    """
    for group in list(optimizer.param_groups):
        own = [factors.get(id(p), 1.0) for p in group['params']]
        for factor in sorted({*own} - {1.0}):
            rates = {k: group[k] * factor for k in _RATES & group.keys()}
            inside = [one == factor for one in own]
            own = [one for one in own if one != factor]
            _regroup(optimizer, group, inside, rates)


def exempt_in_runner(
    runner: Runner, parameters: dict[str, nn.Parameter], what: str
) -> None:
    """Apply :func:`exempt_from_decay` and :func:`join_groups` to a Runner;
    its schedulers follow.

    Call it in ``before_run``: a resumed optimizer state is loaded after that
    and must find the groups that it was saved with. A Runner that trains
    nothing is not changed.

    Args:
        runner (Runner): If it trains, its optimizer and schedulers are built.
        parameters (dict[str, nn.Parameter]): By name.
        what (str): What they are, for messages.
    """
    if isinstance(runner.optim_wrapper, OptimWrapper):
        optimizer = runner.optim_wrapper.optimizer
        exempt_from_decay(optimizer, parameters, what)
        if _may_join(runner):
            join_groups(optimizer)
        # torch.compile, mmengine's `compile`, can't step with its ConfigDicts.
        optimizer.param_groups[:] = map(dict, optimizer.param_groups)
        schedule_groups(runner.param_schedulers)


def _may_join(runner: Runner) -> bool:
    """Not if others know the groups by their number: hooks that come with a
    constructor, schedulers with bounds for each, or an optimizer that keeps
    a second list of them."""
    optimizer = runner.optim_wrapper.optimizer
    kinds = {kind.__name__ for kind in type(optimizer).__mro__}
    return (
        _is_stock(_settings_of(runner))
        and 'ZeroRedundancyOptimizer' not in kinds
        and not any(
            hasattr(one, 'min_values') for one in _all(runner.param_schedulers)
        )
    )


def check_resume_groups(runner: Runner, state: dict[str, Any]) -> None:
    """Make sure that a resumed optimizer had the same groups.

    Args:
        runner (Runner): It resumes.
        state (dict): ``optimizer`` of the file.

    Raises:
        RuntimeError: If the numbers of parameters per group differ.
    """
    groups = state.get('param_groups')
    if groups is None or not isinstance(runner.optim_wrapper, OptimWrapper):
        return
    own = runner.optim_wrapper.optimizer.param_groups
    expected, got = (
        [len(group['params']) for group in part] for part in (own, groups)
    )
    if got != expected:
        raise RuntimeError(
            f'resume from a file of another optimizer or of an older mmgor: '
            f'expected groups of {expected} parameters, got {got}. '
            f'{RESUME_HINT}'
        )


def exempt_from_decay(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    what: str,
) -> None:
    """Let the optimizer train these parameters without weight decay.

    Parameters in a group with weight decay move to a new group, which has
    none and is otherwise the same. Parameters that are in no group, since
    the optimizer's constructor knows weights and biases only, are added. A
    second call changes nothing.

    Args:
        optimizer (Optimizer): As built; its groups are changed in place.
        parameters (dict[str, nn.Parameter]): By name.
        what (str): What they are, for messages.
    """
    missing = {id(p): name for name, p in parameters.items()}
    spared = 0
    for group in list(optimizer.param_groups):
        inside = {id(p) for p in group['params'] if missing.pop(id(p), None)}
        if inside and group.get('weight_decay', 0):
            take_decay_off(optimizer, group, inside)
            spared += len(inside)
    if missing:
        lacking = {name: parameters[name] for name in missing.values()}
        add_undecayed(optimizer, lacking)
        print_log(
            f'{len(missing)} of {what} were not in the optimizer, e.g. '
            f'{list(lacking)[:3]}; they are added, without weight decay.',
            logger='current',
        )
    if spared:
        print_log(
            f'Weight decay is taken off {what} ({spared} parameters), which '
            'it would pull to 0.',
            logger='current',
        )


def join_groups(optimizer: torch.optim.Optimizer) -> None:
    """Join the groups that have the same settings.

    With any ``paramwise_cfg``, mmengine makes a group of every parameter. A
    step then runs each of its kernels once per parameter, and not once for
    many.

    Args:
        optimizer (Optimizer): As built; its groups are changed in place. The
            first one stays the first.
    """
    joined: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        alike = (g for g in joined if _settings(g) == _settings(group))
        first = next(alike, None)
        if first is None:
            joined.append(group)
            continue
        for key in _LISTS & group.keys():
            first[key] = [*first[key], *group[key]]
    optimizer.param_groups[:] = joined


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k not in _LISTS}


def take_decay_off(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], spared: set[int]
) -> None:
    """Move some parameters of a group to a new one without weight decay.

    Args:
        optimizer (Optimizer): As built.
        group (dict): One of its ``param_groups``.
        spared (set[int]): ``id`` of each parameter to move.
    """
    inside = [id(p) in spared for p in group['params']]
    _regroup(optimizer, group, inside, _no_decay(group))


def _regroup(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    inside: list[bool],
    changes: dict[str, Any],
) -> None:
    """Give some parameters of a group other settings; unless they are all,
    they move to a new group."""
    own, rest = {**group, **changes}, dict(group)
    for key in _LISTS & group.keys():
        own[key] = [x for x, mine in zip(group[key], inside) if mine]
        rest[key] = [x for x, mine in zip(group[key], inside) if not mine]
    if rest['params']:
        group.update(rest)
        optimizer.add_param_group(own)
    else:
        group.update(own)


def add_undecayed(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]
) -> None:
    """Add parameters as a new group without weight decay.

    Its other settings are those of the first group.

    Args:
        optimizer (Optimizer): As built.
        parameters (dict[str, nn.Parameter]): By name.
    """
    first = optimizer.param_groups[0]
    own = {**first, **_no_decay(first), 'params': [*parameters.values()]}
    if 'param_names' in own:
        own['param_names'] = list(parameters)
    optimizer.add_param_group(own)


def _no_decay(group: dict[str, Any]) -> dict[str, float]:
    keys = {'weight_decay', 'initial_weight_decay'} & set(group)
    return dict.fromkeys(keys, 0.0)


def schedule_groups(schedulers: Any) -> None:
    """Let schedulers drive groups that were added or changed after they were
    built.

    Args:
        schedulers (list | dict, optional): ``runner.param_schedulers``.
    """
    for scheduler in _all(schedulers):
        groups = scheduler.optimizer.param_groups
        if hasattr(scheduler, 'base_values'):
            initial = f'initial_{scheduler.param_name}'
            scheduler.base_values = [group[initial] for group in groups]
        else:  # ReduceOnPlateau's keep a lower bound per group
            bounds = scheduler.min_values
            bounds += bounds[-1:] * (len(groups) - len(bounds))


def _all(schedulers: Any) -> Iterable[Any]:
    if isinstance(schedulers, dict):
        return chain.from_iterable(schedulers.values())
    return schedulers or []
