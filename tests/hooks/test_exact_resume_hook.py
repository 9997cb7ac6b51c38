"""Where a resumed run goes on, and when it stops.

test_resumed_training.py has trainings, tests/faults/test_training.py one with
all of it.
"""

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmgor.hooks import exact_resume_hook
from mmgor.hooks.exact_resume_hook import ExactResumeHook
from mmgor.io.random_states import random_states, set_random_states


def draws():
    return random.random(), np.random.rand(), torch.rand(2).tolist()


def loop_of(kind, **facts):
    """A train loop without a model."""
    loop = kind.__new__(kind)
    loop.dynamic_milestones, loop.dynamic_intervals = [0], [2]
    loop.val_begin = 1
    vars(loop).update({f'_{key}': value for key, value in facts.items()})
    return loop


class Loader(list):
    """Batches; each draws a number, as augmentation does."""

    def __iter__(self):
        for batch in super().__iter__():
            random.random()
            yield batch


def runner_of(loop, work_dir, val_loop=None):
    return SimpleNamespace(
        train_loop=loop,
        val_loop=val_loop,
        work_dir=str(work_dir),
        logger=logging.getLogger(),
    )


def resumed(states):
    hook = ExactResumeHook()
    meta = dict(random_states=states)
    hook.after_load_checkpoint(SimpleNamespace(_resume=True), dict(meta=meta))
    return hook


def test_states_are_plain_and_repeat_what_is_drawn(tmp_path):
    torch.save(random_states(), tmp_path / 'a.pth')
    wanted = draws()
    draws()
    set_random_states(torch.load(tmp_path / 'a.pth', weights_only=True))
    assert draws() == wanted


@pytest.mark.parametrize('done', [0, 2, 4])
def test_the_rest_of_an_epoch(done, tmp_path):
    states = random_states()
    wanted = [random.random() for _ in range(4 - done)]
    loop = loop_of(EpochBasedTrainLoop, iter=4 + done, epoch=1)
    loop.dataloader = stock = Loader('abcd')
    hook = resumed([states])
    runner = runner_of(loop, tmp_path)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    assert len(loop.dataloader) == 4
    random.seed(9)
    assert list(loop.dataloader) == list('abcd'[done:])
    assert loop.dataloader is stock
    set_random_states(states)
    assert [random.random() for _ in range(4 - done)] == wanted
    hook.before_train_epoch(runner)
    assert loop.dataloader is stock


def test_a_loop_over_iterations(tmp_path):
    states = random_states()
    wanted = draws()
    loop = loop_of(IterBasedTrainLoop, iter=2)
    loop.dataloader_iterator = iter('abcd')
    resumed([states]).before_train(runner_of(loop, tmp_path))
    batches = loop.dataloader_iterator
    assert [next(batches), next(batches)] == ['a', 'b']  # by the loop
    draws()
    assert next(batches) == 'c'
    assert draws() == wanted
    assert next(batches) == 'd'


def test_states_of_other_ranks_are_not_used(tmp_path):
    hook = resumed([random_states()] * 2)
    loop = loop_of(EpochBasedTrainLoop, iter=1, epoch=0)
    loop.dataloader = Loader('ab')
    hook.before_train_epoch(runner_of(loop, tmp_path))
    random.seed(5)
    wanted = [random.random() for _ in range(3)]
    random.seed(5)
    assert list(loop.dataloader) == ['b']  # 'a' is read, too
    assert random.random() == wanted[2]


@pytest.mark.parametrize(
    'kind, facts, note, missing',
    [
        (EpochBasedTrainLoop, dict(epoch=2, iter=6), None, True),
        (EpochBasedTrainLoop, dict(epoch=2, iter=6), '3', True),
        (EpochBasedTrainLoop, dict(epoch=2, iter=6), '6', False),
        (EpochBasedTrainLoop, dict(epoch=2, iter=7), None, False),
        (EpochBasedTrainLoop, dict(epoch=1, iter=3), None, False),
        (EpochBasedTrainLoop, dict(epoch=5, iter=15), None, True),
        (IterBasedTrainLoop, dict(iter=4), None, True),
        (IterBasedTrainLoop, dict(iter=4), '4', False),
        (IterBasedTrainLoop, dict(iter=3), '2', False),
        (IterBasedTrainLoop, dict(iter=9), '8', True),
        (IterBasedTrainLoop, dict(iter=0), None, False),
    ],
)
def test_an_evaluation_that_is_missing(kind, facts, note, missing, tmp_path):
    """It follows every second epoch or iteration, and the last."""
    loop = loop_of(kind, **facts, max_epochs=5, max_iters=9)
    loop.dataloader = Loader('abc')
    if kind is IterBasedTrainLoop:
        loop.dataloader_iterator = SimpleNamespace(_epoch=0)
    if note is not None:
        (tmp_path / 'last_evaluation').write_text(note)
    runner = runner_of(loop, tmp_path, val_loop=object())
    found = exact_resume_hook._evaluation_is_missing(runner, {})
    assert found is missing


def test_an_evaluation_draws_nothing(tmp_path):
    hook = ExactResumeHook()
    runner = SimpleNamespace(work_dir=str(tmp_path), iter=4)
    random.seed(1)
    wanted = random.random()
    random.seed(1)
    hook.before_val_epoch(runner)
    draws()
    hook.after_val_epoch(runner, {})
    assert random.random() == wanted
    assert (tmp_path / 'last_evaluation').read_text() == '4'
