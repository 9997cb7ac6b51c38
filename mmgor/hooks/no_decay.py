"""Keeps weight decay away from what it would pull to a wrong place.

A theta or the log of a step size has its resting point wherever the data put
it; decay pulls it to 0. Which line of a config would keep it away depends on
the optimizer's constructor: some have no such line, or know weights and biases
only, and in others a key of the stock config wins. So the built optimizer is
changed instead.
"""

from itertools import chain
from typing import Any

import torch
from torch import nn


def take_decay_off(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], spared: set[int]
) -> None:
    """Give parameters of a group one of their own, without weight decay and
    otherwise the same.

    Args:
        optimizer (Optimizer): As built.
        group (dict): One of its ``param_groups``.
        spared (set[int]): ``id`` of those parameters.
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
    """Add parameters as a group of the first one's settings, without weight
    decay.

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
    """Let built schedulers know of groups that came after them.

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
        else:  # ReduceOnPlateau's know a lower bound a group
            bounds = scheduler.min_values
            bounds += bounds[-1:] * (len(groups) - len(bounds))
