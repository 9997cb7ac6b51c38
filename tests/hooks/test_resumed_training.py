"""Trainings of one weight that end early and go on."""

import json
import os
import signal
from itertools import chain

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner
from torch.utils.data import Dataset

from mmgor.hooks import ExactResumeHook, exact_resume_hook
from mmgor.io.resume import find_checkpoint, keep_seed
from mmgor.stop_signals import StopRequest

SIZE, BATCH, EPOCHS = 8, 2, 2
PER_EPOCH = SIZE // BATCH
ALL = PER_EPOCH * EPOCHS


@DATASETS.register_module()
class Numbers(Dataset):
    metainfo: dict = {}

    def __init__(self, size=SIZE):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.tensor([float(index)])


@MODELS.register_module()
class OneWeight(BaseModel):
    """Notes what it is trained on."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, *_):
        raise NotImplementedError

    def train_step(self, data, optim_wrapper):
        data = torch.stack(list(data))
        self.seen.append(data.flatten().tolist())
        loss = (self.layer(data) * torch.rand(())).mean()
        for wrapper in (
            optim_wrapper.values()
            if isinstance(optim_wrapper, OptimWrapperDict)
            else [optim_wrapper]
        ):
            wrapper.update_params(loss)
        return dict(loss=loss.detach())

    def val_step(self, data):
        torch.rand(3)
        return [{}]


@METRICS.register_module()
class GrowsWorse(BaseMetric):
    """1 after the first epoch, 0 after the second."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        last = MessageHub.get_current_instance().get_info('iter')
        return dict(score=float(last <= PER_EPOCH))


class AtIteration(Hook):
    """Asks for a stop, as a signal does, or dies."""

    def __init__(self, at):
        self.at, self.request = at, StopRequest()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            self.request.number = signal.SIGTERM


class Killed(Exception):
    pass


class DiesBeforeEvaluation(Hook):
    """As a kill behind the first checkpoint."""

    def before_val(self, runner):
        raise Killed


class DiesBeforeEpoch(Hook):
    """As a kill before the second epoch, behind an evaluation."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            raise Killed


def config_of(work_dir, size=SIZE, seed=0, evaluate=False, **others):
    loader = dict(
        batch_size=BATCH,
        num_workers=0,
        dataset=dict(type='Numbers', size=size),
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    checkpoint = dict(type='SafeCheckpointHook', interval=1)
    config = dict(
        model=dict(type='OneWeight'),
        work_dir=str(work_dir),
        default_scope='mmdet',
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
        experiment_name=os.urandom(4).hex(),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=checkpoint, logger=dict(type='LoggerHook', interval=2)
        ),
        randomness=dict(seed=seed),
    )
    if evaluate:
        still = dict(type='DefaultSampler', shuffle=False)
        config['val_dataloader'] = dict(loader, sampler=still)
        config['val_cfg'] = {}
        config['val_evaluator'] = dict(type='GrowsWorse')
        checkpoint.update(save_best='score', rule='greater')
    return Config(dict(config, **others))


def train(config, stop_at=None, kind=Runner, hook=None):
    """The numbers that each iteration was trained on, and the Runner."""
    keep_seed(config)
    runner = kind.from_cfg(config)
    ask = AtIteration(stop_at)
    for each in filter(None, [ask, hook]):
        runner.register_hook(each)
    runner.register_hook(ExactResumeHook(ask.request), 'LOWEST')
    try:
        runner.train()
    except SystemExit as stop:
        assert stop.code == 128 + signal.SIGTERM
    except Killed:
        pass
    return runner.model.seen, runner


def weight(runner):
    return runner.model.layer.weight.item()


def logged(work_dir):
    """Losses by iteration, in the order in which they were written."""
    return [
        (record['step'], record['epoch'], record['loss'])
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for record in map(json.loads, file.read_text().splitlines())
        if 'loss' in record
    ]


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
@pytest.mark.parametrize('stop_at', [PER_EPOCH - 1, PER_EPOCH])
def test_it_goes_on_where_it_was_stopped(kind, stop_at, tmp_path):
    whole, undisturbed = train(config_of(tmp_path / 'whole'), kind=kind)
    work_dir = tmp_path / 'run'
    first, _ = train(config_of(work_dir), stop_at, kind)
    rest, resumed = train(config_of(work_dir, resume=True), kind=kind)
    assert first + rest == whole
    assert len(first) == stop_at + 1
    assert weight(resumed) == weight(undisturbed)
    assert logged(work_dir) == logged(tmp_path / 'whole')
    assert [step for step, *_ in logged(work_dir)] == [2, 4, 6, 8]


def test_without_a_seed_the_order_is_kept(tmp_path):
    """It also is without `load_from`, with a stop in either epoch."""
    seen = []
    for stop_at in (1, PER_EPOCH, None):
        resume = bool(seen)
        config = config_of(tmp_path, seed=None, resume=resume)
        seen += train(config, stop_at)[0]
    assert len(seen) == ALL
    for epoch in (seen[:PER_EPOCH], seen[PER_EPOCH:]):
        assert sorted(chain(*epoch)) == list(range(SIZE))


@pytest.mark.parametrize('named', [True, False])
def test_the_checkpoint_is_read_once(named, tmp_path, monkeypatch):
    """Not once each for its health, its seed and its weights."""
    train(config_of(tmp_path, seed=None), PER_EPOCH)
    reads, stock = [], torch.load
    monkeypatch.setattr(
        torch, 'load', lambda f, **kw: reads.append(f) or stock(f, **kw)
    )
    config = config_of(tmp_path, seed=None, resume=True)
    if named:  # as tools/train.py --resume does it
        config.load_from = find_checkpoint(tmp_path)
    seen, _ = train(config)
    assert len(seen) == ALL - PER_EPOCH - 1
    assert reads == [str(tmp_path / 'stopped.pth')]


def test_the_seed_of_a_config_stays(tmp_path):
    torch.save(dict(meta=dict(seed=5)), tmp_path / 'a.pth')
    for seed, kept in ((None, 5), (7, 7)):
        config = config_of(tmp_path, seed=seed, resume=True)
        config.load_from = str(tmp_path / 'a.pth')
        keep_seed(config)
        assert config.randomness.seed == kept
    config = config_of(tmp_path, seed=None)
    keep_seed(config)
    assert config.randomness.seed is None


def test_fewer_data_than_before(tmp_path):
    """The position in the epoch counts, not the number of iterations."""
    train(config_of(tmp_path), PER_EPOCH)
    less = config_of(tmp_path, size=SIZE - BATCH, resume=True)
    seen, runner = train(less)
    assert len(seen) == PER_EPOCH - 1 - 1
    log = next(tmp_path.glob(f'{runner.timestamp}/*.log')).read_text()
    assert '1 of 3 batches of epoch 2 were trained on' in log


def test_several_optimizers(tmp_path, monkeypatch):
    runner = Runner.from_cfg(config_of(tmp_path))
    layer = runner.model.layer
    wrappers = {
        name: OptimWrapper(
            torch.optim.SGD([parameter]), accumulative_counts=counts
        )
        for (name, parameter), counts in zip(layer.named_parameters(), (1, 2))
    }
    runner.optim_wrapper = OptimWrapperDict(**wrappers)
    assert exact_resume_hook._steps_are_complete(runner)
    wrappers['bias']._inner_count = 1
    assert not exact_resume_hook._steps_are_complete(runner)


class NotesStates(Hook):
    priority = 'LOWEST'

    def after_train_epoch(self, runner):
        self.state = torch.get_rng_state()


def test_the_best_checkpoint_has_the_states_of_the_training(tmp_path):
    """It is written at the end of an evaluation, which draws numbers."""
    note = NotesStates()
    config = config_of(tmp_path, evaluate=True)
    config.train_cfg.max_epochs = 1
    train(config, hook=note)
    meta = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['meta']
    assert meta['position']['evaluated']
    assert torch.equal(meta['random_states'][0]['torch'], note.state)


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_the_best_score_of_an_evaluation_that_comes_late_is_kept(
    kind, tmp_path
):
    """Two kills: one before the evaluation, one before the next epoch."""
    whole, work_dir = tmp_path / 'whole', tmp_path / 'run'
    for hook in (DiesBeforeEvaluation(), DiesBeforeEpoch()):
        resume = work_dir.exists()
        config = config_of(work_dir, evaluate=True, resume=resume)
        train(config, kind=kind, hook=hook)
    _, undisturbed = train(config_of(whole, evaluate=True), kind=kind)

    def meta(folder):
        return torch.load(folder / 'epoch_1.pth', weights_only=True)['meta']

    assert meta(work_dir)['position'] == meta(whole)['position']
    states = [
        m['random_states'][0]['torch'] for m in map(meta, (work_dir, whole))
    ]
    assert torch.equal(*states)
    config = config_of(work_dir, evaluate=True, resume=True)
    _, resumed = train(config, kind=kind)
    assert weight(resumed) == weight(undisturbed)
    best = [path.name for path in work_dir.glob('best_*.pth')]
    assert best == ['best_score_epoch_1.pth']


PLATEAU = dict(
    type='ReduceOnPlateauLR',
    monitor='score',
    rule='greater',
    patience=5,
    end=99,
)


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
@pytest.mark.parametrize('rewritten', [True, False])
def test_a_scheduler_that_steps_by_evaluations(kind, rewritten, tmp_path):
    """A kill behind an evaluation loses no step of it, and adds none."""
    others = dict(evaluate=True, param_scheduler=[PLATEAU])

    def config(name, **more):
        made = config_of(tmp_path / name, **others, **more)
        if not rewritten:
            made.default_hooks.checkpoint.pop('save_best')
        return made

    def schedule(runner):
        (scheduler,) = runner.param_schedulers
        return scheduler.state_dict()

    _, undisturbed = train(config('whole'), kind=kind)
    train(config('run'), kind=kind, hook=DiesBeforeEpoch())
    resume = config('run', resume=True)
    resume.load_from = str(tmp_path / 'run' / 'epoch_1.pth')
    seen, resumed = train(resume, kind=kind)
    assert len(seen) == PER_EPOCH
    assert schedule(resumed) == schedule(undisturbed)
    assert schedule(resumed)['best'] == 1
    assert schedule(resumed)['num_bad_epochs'] == 1


@pytest.mark.parametrize('resume', [True, False])
def test_evaluations_of_other_runs_are_forgotten(resume, tmp_path):
    train(config_of(tmp_path))
    (tmp_path / 'last_evaluation').write_text('999')
    config = config_of(tmp_path, resume=resume)
    if resume:
        config.load_from = str(tmp_path / 'epoch_1.pth')
    train(config)
    note = (tmp_path / 'last_evaluation').read_text()
    assert note == str(PER_EPOCH if resume else 0)


def test_ranks_wait_for_the_file(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(
        exact_resume_hook.dist,
        'barrier',
        lambda: found.append((tmp_path / 'last_checkpoint').read_text()),
    )
    train(config_of(tmp_path), 1)
    assert found == [str(tmp_path / 'stopped.pth')]
