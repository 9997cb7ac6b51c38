"""What several hooks need."""

from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from .no_decay import add_undecayed, schedule_new_groups, take_decay_off


def unwrapped_model(runner: Runner) -> Any:
    """The detector itself, without DDP's or another wrapper around it, or
    that of test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def run_losses(model: Any, batch: Any) -> None:
    """A training batch through what training runs of the student: the stock
    detector with its losses, no teacher and no balancer.

    Args:
        model (nn.Module): A detector with its ``data_preprocessor``.
        batch (Any): As the train dataloader gives it.
    """
    data = model.data_preprocessor(batch, True)
    run = getattr(model, 'stock_loss', partial(model, mode='loss'))
    if isinstance(data, dict):
        run(**data)
    else:
        run(*data)


def run_student(model: Any, batch: Any) -> None:
    """A training batch through the student alone, without losses.

    Args:
        model (nn.Module): A detector with its ``data_preprocessor``.
        batch (dict): As the train dataloader gives it.
    """
    data = model.data_preprocessor(batch, False)
    model(**data, mode='tensor')


def check_batches(runner: Runner) -> None:
    """Make sure that an epoch has a batch.

    Raises:
        ValueError: If it has none.
    """
    if runner.max_iters or not runner.max_epochs:
        return
    loader = runner.train_dataloader
    size = loader.batch_size or loader.batch_sampler.batch_size
    raise ValueError(
        f'an epoch has no batch: expected at least {size} images with '
        f'batch_size={size} and drop_last=True, got {len(loader.dataset)}. '
        'Set a smaller train_dataloader.batch_size, or drop_last=False.'
    )


def keep_from_decay(
    runner: Runner, parameters: dict[str, nn.Parameter], what: str
) -> None:
    """:func:`check_optimizer` for a Runner, whose schedulers follow.

    Groups must be those of the file when a resumed state comes in: called
    before that, in ``before_run``. A run that trains nothing is left alone.

    Args:
        runner (Runner): Its optimizer and schedulers built, if it trains.
        parameters (dict[str, nn.Parameter]): As there.
        what (str): As there.
    """
    if isinstance(runner.optim_wrapper, OptimWrapper):
        optimizer = runner.optim_wrapper.optimizer
        check_optimizer(optimizer, parameters, what)
        # torch.compile, mmengine's `compile`, can't step with its ConfigDicts.
        optimizer.param_groups[:] = map(dict, optimizer.param_groups)
        schedule_new_groups(runner.param_schedulers)


def check_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    what: str,
) -> None:
    """Make sure that the optimizer holds parameters and does not decay them.

    Those of a group with weight decay go to a group of their own without any,
    which is otherwise the same. Those that the constructor left out (one that
    knows weights and biases only) are added.

    Args:
        optimizer (Optimizer): As built; its groups are changed.
        parameters (dict[str, nn.Parameter]): Those to look for.
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
