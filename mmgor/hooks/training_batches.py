"""Reads the batches that training starts with, without using them up."""

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset

# Settings that torch refuses, or does not need, without worker processes.
_OF_WORKERS = (
    'num_workers',
    'persistent_workers',
    'prefetch_factor',
    'timeout',
    'multiprocessing_context',
    'pin_memory',
)


def training_batches(runner: Runner, count: int) -> list[Any]:
    """Get up to ``count`` batches as training will see them.

    They come from a separate loader. Stopping half-way through the training
    loader would end the generator that mmengine's InfiniteSampler keeps for
    the whole run.

    Args:
        runner (Runner): Its train loop built.
        count (int): Largest number of batches.

    Raises:
        TypeError: If training does not read from one DataLoader.
        RuntimeError: If there is no batch.
    """
    stock = runner.train_dataloader
    if not isinstance(stock, DataLoader):
        raise TypeError(
            'calibration expected one torch DataLoader to train on, got '
            f'{type(stock).__name__}. Calibrate with '
            'mmgor.quantization.calibrate(model, batches, run), save the '
            'state dict, and set load_from to the file.'
        )
    config = runner._train_dataloader
    if isinstance(config, dict):
        loader = _from_config(runner, config, stock.dataset)
    else:
        loader = _from_built(stock)
    with _own_transforms(stock.dataset):
        batches = list(islice(loader, min(count, sys.maxsize)))
    if not batches:
        raise RuntimeError(
            'calibration got no batch: expected a train_dataloader with at '
            'least one. Check its ann_file and filter_cfg, and, with '
            'drop_last=True, that it has at least as many images as a batch.'
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
    size = batch_size(loader)
    raise ValueError(
        f'an epoch has no batch: expected at least {size} images with '
        f'batch_size={size} and drop_last=True, got {len(loader.dataset)}. '
        'Set a smaller train_dataloader.batch_size, or drop_last=False.'
    )


def batch_size(loader: Any) -> int:
    """Images per batch.

    Args:
        loader (DataLoader): With a batch sampler of its own, or without.
    """
    return loader.batch_size or loader.batch_sampler.batch_size


@contextmanager
def _own_transforms(dataset: Any) -> Iterator[None]:
    """Use copies of the data set's transforms inside the ``with`` block.

    Some transforms keep images that they mix later (CachedMosaic), or a random
    generator.
    """
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
    """Yield a data set and all data sets that it wraps or joins."""
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
            'the transforms of the training data cannot be copied '
            f'({type(error).__name__}: {error}). Calibration runs the '
            'originals, which may keep some of its images.',
            logger='current',
            level=logging.WARNING,
        )
        return pipeline


def _from_config(runner: Runner, config: dict, dataset: Any) -> DataLoader:
    """Build the loader as the Runner does, but with the existing data set."""
    config = dict(config)
    if 'worker_init_fn' not in config:  # it would need worker processes
        for key in _OF_WORKERS:
            config.pop(key, None)
        config['num_workers'] = 0
    # The Runner would copy a data set, but it does not copy a function.
    config['dataset'] = dict(type=lambda: dataset)
    randomness = getattr(runner, '_randomness_cfg', {})
    return runner.build_dataloader(
        config,
        seed=runner.seed,
        diff_rank_seed=randomness.get('diff_rank_seed', False),
    )


def _from_built(stock: DataLoader) -> DataLoader:
    """Copy the settings of a loader that the Runner did not build."""
    sampling: dict[str, Any] = {}
    if isinstance(stock.dataset, IterableDataset):
        sampling.update(batch_size=stock.batch_size, drop_last=stock.drop_last)
    elif stock.batch_sampler is None:
        sampling.update(batch_size=None, sampler=_at_start(stock.sampler))
    else:
        sampling.update(batch_sampler=_at_start(stock.batch_sampler))
    return DataLoader(stock.dataset, collate_fn=stock.collate_fn, **sampling)


def _at_start(sampler: Any) -> Any:
    """Copy a sampler, or a batch sampler and the sampler inside it.

    Raises:
        TypeError: If it cannot be copied.
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
            'train_dataloader=dict(...), from which it builds another loader.'
        ) from error
