"""What several hooks need."""

from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

OPTIM_LINE = (
    'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'
    "'gor_weighting.': dict(decay_mult=0.0), "
    "'fusion.logits': dict(decay_mult=0.0), "
    "'_quantizer.': dict(decay_mult=0.0)}))"
)


def unwrapped_model(runner: Runner) -> Any:
    """The detector itself, without DDP's or another wrapper around it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def run_student(model: Any, batch: Any) -> None:
    """A training batch through the student alone, without losses.

    Args:
        model (nn.Module): A detector with its ``data_preprocessor``.
        batch (dict): As the train dataloader gives it.
    """
    data = model.data_preprocessor(batch, False)
    model(**data, mode='tensor')


def dataset_classes(dataset: Any) -> list[str] | None:
    """Class names of a data set, or of one that joins several.

    Args:
        dataset (Dataset): Its ``metainfo``, if it has one, is a dict, or, for
            mmdet's ConcatDataset of unequal parts, a list of them.

    Returns:
        list[str] | None: None: no names are known.

    Raises:
        ValueError: If parts differ in their classes or in the order of them.
    """
    metainfo = getattr(dataset, 'metainfo', {})
    parts = metainfo if isinstance(metainfo, list) else [metainfo]
    names = [part.get('classes') for part in parts]
    lists = [None if classes is None else list(classes) for classes in names]
    for i, classes in enumerate(lists):
        if classes != lists[0]:
            raise ValueError(
                'expected the same classes in all data sets of '
                f'{type(dataset).__name__}, got {lists[0]} in number 0 and '
                f'{classes} in number {i}. Set metainfo=dict(classes=[...]) '
                'in every one of its datasets.'
            )
    return lists[0]


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
