"""What several hooks need."""

from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

OPTIM_LINE = (
    'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'
    "'gor_weighting.': dict(decay_mult=0.0), "
    "'_quantizer.': dict(decay_mult=0.0)}))"
)


def unwrapped_model(runner: Runner) -> Any:
    """The detector itself, without DDP's or another wrapper around it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def check_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    what: str,
) -> None:
    """Make sure that the optimizer holds parameters, without weight decay.

    Args:
        optimizer (Optimizer): As built.
        parameters (dict[str, nn.Parameter]): Those to look for.
        what (str): What they are, for the message.

    Raises:
        RuntimeError: If one is missing or decays, with the line to paste.
    """
    missing = {id(p): name for name, p in parameters.items()}
    for group in optimizer.param_groups:
        inside = [missing.pop(id(p), None) for p in group['params']]
        if any(inside) and group.get('weight_decay', 0):
            raise RuntimeError(
                f'expected {what} without weight decay, got a group with '
                f'weight_decay={group["weight_decay"]}. Add to the config:\n'
                f'{OPTIM_LINE}'
            )
    if missing:
        raise RuntimeError(
            f'expected {what} in the optimizer, but {len(missing)} are '
            f'missing, e.g. {sorted(missing.values())[:3]}. Remove them from '
            'the exclusions of your optimizer constructor.'
        )
