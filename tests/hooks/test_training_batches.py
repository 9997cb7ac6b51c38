"""Calibration sees the batches that training starts with, and leaves them."""

import random
from itertools import islice
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
)

from mmgor.hooks.training_batches import check_batches, training_batches
from mmgor.trial_run import random_states_kept

SIZES = [(4, 2), (2, 4), (2, 4), (4, 2), (2, 2), (4, 2), (2, 4)]


class Images(Dataset):
    """Seven wide or tall images; the data set must not be copied."""

    metainfo = dict(classes=['disc', 'ring', 'box'])

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        return index

    def get_data_info(self, index):
        return dict(width=SIZES[index][0], height=SIZES[index][1])

    def get_cat_ids(self, index):
        return [index % 3]

    def __deepcopy__(self, memo):
        raise AssertionError('a data set may be as large as memory is')


class Stream(IterableDataset):
    def __iter__(self):
        yield from range(7)


def told(items, word):
    return [f'{word}{item}' for item in items]


def greet(worker_id, **kwargs):
    torch.manual_seed(100 + worker_id)


def runner_of(config):
    build = Runner.build_dataloader
    stock = build(config, seed=3)
    return SimpleNamespace(
        train_dataloader=stock,
        _train_dataloader=config,
        build_dataloader=build,
        seed=3,
    )


def check(config, count=3):
    runner = runner_of(config)
    with random_states_kept():
        got = training_batches(runner, count)
    want = list(islice(runner.train_dataloader, count))
    as_lists = [
        [b.tolist() if isinstance(b, torch.Tensor) else b for b in batches]
        for batches in (got, want)
    ]
    assert as_lists[0] == as_lists[1]
    return as_lists[0]


def config(**kwargs):
    return dict(
        dict(
            dataset=dict(type=Images),
            batch_size=3,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        **kwargs,
    )


KINDS = dict(
    shuffled={},
    in_order=dict(sampler=dict(type='DefaultSampler', shuffle=False)),
    drop_last=dict(drop_last=True),
    infinite=dict(sampler=dict(type='InfiniteSampler', shuffle=True)),
    more_than_there_are=dict(
        sampler=dict(type='InfiniteSampler', shuffle=False), batch_size=9
    ),
    by_class=dict(sampler=dict(type='mmdet.ClassAwareSampler')),
    by_shape=dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler')),
    by_shape_full=dict(
        batch_sampler=dict(
            type='mmdet.AspectRatioBatchSampler', drop_last=True
        )
    ),
    one_by_one=dict(batch_size=None, collate_fn=dict(type=str)),
    collated=dict(collate_fn=dict(type=told, word='image')),
    shortened=dict(num_batch_per_epoch=1),
)


@pytest.mark.parametrize('kind', KINDS)
def test_as_the_config_says(kind):
    changes = KINDS[kind]
    dataset = dict(type=Images)
    batches = check(config(**dict(dict(dataset=dataset), **changes)))
    if kind == 'drop_last':
        assert [len(batch) for batch in batches] == [3, 3]


def test_a_stream():
    assert check(config(dataset=dict(type=Stream), sampler=None), count=9) == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]


def test_sources_that_are_mixed():
    parts = dict(type=lambda: Parts([Images(), Images()]))
    sampler = dict(
        type='mmdet.GroupMultiSourceSampler',
        batch_size=4,
        source_ratio=[1, 3],
    )
    for batch in check(config(dataset=parts, sampler=sampler, batch_size=4)):
        assert sum(index < 7 for index in batch) == 1


class Parts(ConcatDataset):
    metainfo = Images.metainfo

    def __getitem__(self, index):
        return index

    def get_data_info(self, index):
        return self.datasets[0].get_data_info(index % 7)

    def __deepcopy__(self, memo):
        raise AssertionError('a data set may be as large as memory is')


@pytest.mark.parametrize(
    'workers',
    [
        dict(persistent_workers=True, prefetch_factor=3, timeout=30),
        dict(worker_init_fn=dict(type=greet), pin_memory=False),
    ],
)
def test_settings_of_workers(workers):
    config_ = config(dataset=dict(type=Images), num_workers=1, **workers)
    runner = runner_of(config_)
    got = training_batches(runner, 2)
    want = DefaultSampler(Images(), shuffle=True, seed=3)
    assert torch.cat(got).tolist() == list(want)[:6]


class Hoarder:
    """A transform that keeps what it has seen, as CachedMosaic does."""

    def __init__(self, handle=None):
        self.seen, self.handle = [], handle

    def __call__(self, index):
        self.seen.append(index)
        return len(self.seen)


class Transformed(Images):
    def __init__(self, *transforms):
        self.pipeline = list(transforms)

    def __getitem__(self, index):
        return self.pipeline[0](index)


WRAPPED = [
    lambda data: data,
    lambda data: Subset(data, range(7)),
    lambda data: ConcatDataset([Images(), data]),
    lambda data: ConcatDataset([Subset(data, range(7))]),
]


@pytest.mark.parametrize('wrap', WRAPPED)
@pytest.mark.parametrize('shorten', [{}, dict(num_batch_per_epoch=2)])
def test_transforms_keep_images_of_training_only(wrap, shorten):
    hoarder = Hoarder()
    dataset = wrap(Transformed(hoarder))
    source = config(dataset=dict(type=lambda: dataset), **shorten)
    source['sampler'] = dict(type='DefaultSampler', shuffle=False)
    runner = runner_of(source)
    got = torch.cat(training_batches(runner, 3))
    assert hoarder.seen == []
    assert torch.equal(
        got, torch.cat(list(islice(runner.train_dataloader, 3)))
    )


def test_transforms_that_cannot_be_copied_are_run():
    hoarder = Hoarder(handle=Lock())
    training_batches(runner_of(DataLoader(Transformed(hoarder), 2)), 1)
    assert hoarder.seen == [0, 1]


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('by_shape', [None, BatchSampler, 'aspect'])
def test_a_loader_that_the_runner_was_given(infinite, by_shape):
    dataset = Images()
    kind = InfiniteSampler if infinite else DefaultSampler
    sampler = kind(dataset, shuffle=True, seed=5)
    if by_shape is None:
        loader = DataLoader(dataset, 2, sampler=sampler, drop_last=True)
    else:
        make = AspectRatioBatchSampler if by_shape == 'aspect' else by_shape
        batches = make(sampler, 2, True)
        loader = DataLoader(dataset, batch_sampler=batches)
    check(loader)


def test_a_loader_without_batches_or_of_a_stream():
    check(DataLoader(Images(), batch_size=None, collate_fn=str))
    check(DataLoader(Stream(), batch_size=2, drop_last=True))


def test_too_few_images_for_a_batch():
    runner = runner_of(
        config(dataset=dict(type=Images), batch_size=8, drop_last=True)
    )
    with pytest.raises(RuntimeError, match='as many images as a batch'):
        training_batches(runner, 1)


def epochs_of(images, batch, epochs=1):
    """A runner whose loader drops the last batch."""
    loader = DataLoader(range(images), batch_size=batch, drop_last=True)
    return SimpleNamespace(
        train_dataloader=loader,
        max_epochs=epochs,
        max_iters=epochs * len(loader),
    )


def test_an_epoch_without_a_batch():
    check_batches(epochs_of(8, 4))
    check_batches(epochs_of(3, 4, epochs=0))  # calibration alone
    message = 'at least 4 images with batch_size=4 and drop_last=True, got 3'
    with pytest.raises(ValueError, match=message):
        check_batches(epochs_of(3, 4))


def test_several_loaders_are_refused():
    runner = SimpleNamespace(train_dataloader=[1, 2])
    with pytest.raises(TypeError, match=r'one torch DataLoader .* got list'):
        training_batches(runner, 1)


def test_random_states_are_kept():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    want = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with pytest.raises(KeyError), random_states_kept():
        draw()
        raise KeyError
    assert draw() == want
