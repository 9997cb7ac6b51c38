"""Changes the optimizer's groups so that weight decay spares some parameters.

The data alone should decide the value of a theta or of a step size's log;
weight decay would pull it to 0. Which setting in a config prevents that
depends on the optimizer's constructor: some have no such setting, some know
weights and biases only, and in others a key of the stock config wins. So the
optimizer is changed after it was built.
"""

from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn


def exempt_in_runner(
    runner: Runner, parameters: dict[str, nn.Parameter], what: str
) -> None:
    """Apply :func:`exempt_from_decay` to a Runner; its schedulers follow.

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
        # torch.compile, mmengine's `compile`, can't step with its ConfigDicts.
        optimizer.param_groups[:] = map(dict, optimizer.param_groups)
        schedule_new_groups(runner.param_schedulers)


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
    own, rest = _undecayed(group), dict(group)
    # Layer-decay constructors write names beside the parameters.
    for key in {'params', 'param_names'} & set(group):
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
    own = _undecayed(optimizer.param_groups[0])
    own['params'] = list(parameters.values())
    if 'param_names' in own:
        own['param_names'] = list(parameters)
    optimizer.add_param_group(own)


def _undecayed(group: dict[str, Any]) -> dict[str, Any]:
    keys = {'weight_decay', 'initial_weight_decay'} & set(group)
    return {**group, **dict.fromkeys(keys, 0.0)}


def schedule_new_groups(schedulers: Any) -> None:
    """Let schedulers drive groups that were added after they were built.

    Args:
        schedulers (list | dict, optional): ``runner.param_schedulers``.
    """
    if isinstance(schedulers, dict):
        schedulers = chain.from_iterable(schedulers.values())
    for scheduler in schedulers or []:
        groups = scheduler.optimizer.param_groups
        if hasattr(scheduler, 'base_values'):
            initial = f'initial_{scheduler.param_name}'
            new = groups[len(scheduler.base_values) :]
            scheduler.base_values += [group[initial] for group in new]
        else:  # ReduceOnPlateau's keep a lower bound per group
            bounds = scheduler.min_values
            bounds += bounds[-1:] * (len(groups) - len(bounds))
