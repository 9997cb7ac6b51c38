"""The batches that training would start with, without taking them from it."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset

# What torch refuses, or has no use for, without worker processes.
_OF_WORKERS = (
    'num_workers',
    'persistent_workers',
    'prefetch_factor',
    'timeout',
    'multiprocessing_context',
    'pin_memory',
)


def training_batches(runner: Runner, count: int) -> list[Any]:
    """Up to ``count`` batches as training sees them.

    They come from a loader of its own: to stop half-way through training's
    would end the generator that mmengine's InfiniteSampler keeps for the
    whole run.

    Args:
        runner (Runner): Its train loop built.
        count (int): How many at most.

    Raises:
        TypeError: If training reads something other than one DataLoader.
        RuntimeError: If there is no batch.
    """
    stock = runner.train_dataloader
    if not isinstance(stock, DataLoader):
        raise TypeError(
            'calibration expected one torch DataLoader to train on, got '
            f'{type(stock).__name__}. Calibrate by '
            'mmgor.quantization.calibrate(model, batches, run), save the '
            'state dict, and give the file as load_from.'
        )
    config = runner._train_dataloader
    if isinstance(config, dict):
        loader = _from_config(runner, config, stock.dataset)
    else:
        loader = _from_built(stock)
    with _own_transforms(stock.dataset):
        batches = list(islice(loader, count))
    if not batches:
        raise RuntimeError(
            'calibration got no batch: expected a train_dataloader with at '
            'least one. Check its ann_file and filter_cfg, and, with '
            'drop_last=True, that it has as many images as a batch.'
        )
    return batches


def check_batches(runner: Runner) -> None:
    """Make sure that an epoch has at least one batch.

    Args:
        runner (Runner): Its train loop built.

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


@contextmanager
def _own_transforms(dataset: Any) -> Iterator[None]:
    """Copies of the transforms stand in for them: some keep the images that
    they mix (CachedMosaic), or a random generator."""
    owners = [p for p in _parts(dataset) if 'pipeline' in vars(p)]
    stock = [part.pipeline for part in owners]
    for part in owners:
        part.pipeline = _copied(part.pipeline)
    try:
        yield
    finally:
        for part, pipeline in zip(owners, stock):
            part.pipeline = pipeline


def _parts(dataset: Any) -> Iterator[Any]:
    """A data set and those that it wraps or joins."""
    held = getattr(dataset, '__dict__', None)
    if held is not None:
        yield dataset
        for name in ('dataset', '_dataset'):
            yield from _parts(held.get(name))
        for part in held.get('datasets', []):
            yield from _parts(part)


def _copied(pipeline: Any) -> Any:
    try:
        return copy.deepcopy(pipeline)
    except Exception as error:  # whatever a copy may raise
        print_log(
            'The transforms of the training data cannot be copied '
            f'({type(error).__name__}: {error}): calibration runs those of '
            'training, and leaves what they keep of its images.',
            logger='current',
            level=logging.WARNING,
        )
        return pipeline


def _from_config(runner: Runner, config: dict, dataset: Any) -> DataLoader:
    """As the Runner builds it, but from the data set that is there."""
    config = dict(config)
    if 'worker_init_fn' not in config:  # else it runs in workers only
        for key in _OF_WORKERS:
            config.pop(key, None)
        config['num_workers'] = 0
    # The Runner copies a data set, but not a function that gives it.
    config['dataset'] = dict(type=lambda: dataset)
    randomness = getattr(runner, '_randomness_cfg', {})
    return runner.build_dataloader(
        config,
        seed=runner.seed,
        diff_rank_seed=randomness.get('diff_rank_seed', False),
    )


def _from_built(stock: DataLoader) -> DataLoader:
    """For a loader that the Runner was given: one with the same settings."""
    sampling: dict[str, Any] = {}
    if isinstance(stock.dataset, IterableDataset):
        sampling.update(batch_size=stock.batch_size, drop_last=stock.drop_last)
    elif stock.batch_sampler is None:
        sampling.update(batch_size=None, sampler=_at_start(stock.sampler))
    else:
        sampling.update(batch_sampler=_at_start(stock.batch_sampler))
    return DataLoader(stock.dataset, collate_fn=stock.collate_fn, **sampling)


def _at_start(sampler: Any) -> Any:
    """A copy of a sampler, or of a batch sampler and the one in it.

    Raises:
        TypeError: If it can't be copied.
    """
    if isinstance(sampler, InfiniteSampler):
        kind = type(sampler)
        return kind(sampler.dataset, sampler.shuffle, sampler.seed)
    inner = getattr(sampler, 'sampler', None)
    shared = [getattr(x, 'dataset', None) for x in (sampler, inner)]
    shared.append(getattr(sampler, 'data_source', None))
    memo = {id(data): data for data in shared if data is not None}
    if inner is not None:
        memo[id(inner)] = _at_start(inner)
    try:
        return copy.deepcopy(sampler, memo)
    except TypeError as error:
        raise TypeError(
            f'calibration could not copy the {type(sampler).__name__} of the '
            f'train_dataloader that the Runner was given ({error}); expected '
            'train_dataloader as a dict, from which it builds its own.'
        ) from error
