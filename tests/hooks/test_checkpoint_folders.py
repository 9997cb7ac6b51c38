"""Checkpoints are removed, rewritten and published only where they should be.

The model is one layer: what is trained does not matter here.
"""

import os
import shutil

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmgor.hooks import ExactResumeHook, SafeCheckpointHook
from mmgor.hooks.safe_checkpoint_hook import WholeFileBackend


class Layer(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode):
        found = self.layer(inputs)
        return dict(loss=found.sum()) if mode == 'loss' else [found]


class Scores(BaseMetric):
    """Gives the scores of a list, one an evaluation."""

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        score = next(self.scores)
        return dict(score=score, other=score)


def train(work_dir, epochs, scores=(), hook=SafeCheckpointHook, **given):
    """Train for some epochs; the others are keys of Runner and of the hook."""
    runner_keys = {k: given.pop(k) for k in ('load_from',) if k in given}
    loader = dict(
        batch_size=1,
        num_workers=0,
        dataset=[torch.ones(1)],
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    runner = Runner(
        model=Layer(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        **(
            dict(
                val_dataloader=loader,
                val_cfg={},
                val_evaluator=[Scores(scores)],
            )
            if scores
            else {}
        ),
        default_hooks=dict(checkpoint=hook(interval=1, **given)),
        custom_hooks=[ExactResumeHook()],
        default_scope='mmengine',
        experiment_name=os.urandom(4).hex(),
        log_level='ERROR',
        resume=epochs > 1,
        **runner_keys,
    )
    runner.train()
    return runner


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def meta(path):
    return torch.load(path, weights_only=False)['meta']


SCORE = dict(save_best='score', rule='greater')
BOTH = dict(save_best=['score', 'other'], rule='greater')


def best(number, key='score'):
    return f'best_{key}_epoch_{number}.pth'


@pytest.mark.parametrize('keys', [SCORE, BOTH])
def test_a_repeated_evaluation_keeps_the_best(keys, tmp_path):
    """As if a kill came before the evaluation was noted."""
    train(tmp_path, 1, [0.5], CheckpointHook, **keys)
    (tmp_path / 'last_evaluation').unlink()
    train(tmp_path, 2, [0.6, 0.1], **keys)
    saved = ['score'] if keys is SCORE else ['other', 'score']
    expected = [best(1, key) for key in saved]
    assert names(tmp_path) == [*expected, 'epoch_1.pth', 'epoch_2.pth']
    assert meta(tmp_path / 'epoch_1.pth')['outdated'] == []


def test_a_best_one_that_is_named_as_outdated_stays(tmp_path):
    """As earlier versions did when an evaluation was repeated."""
    train(tmp_path, 1, [0.5], **SCORE)
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    content['meta']['outdated'] = [best(1), 'epoch_1.pth', 'best_old.pth']
    (tmp_path / 'epoch_1.pth.sha256').unlink()
    torch.save(content, tmp_path / 'epoch_1.pth')
    (tmp_path / 'best_old.pth').touch()
    train(tmp_path, 2, [0.1], **SCORE, max_keep_ckpts=2)
    assert names(tmp_path) == [best(1), 'epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize('keys', [SCORE, BOTH])
def test_a_copy_removes_its_own_best_one(keys, tmp_path):
    a, b = tmp_path / 'a', tmp_path / 'b'
    train(a, 1, [0.5], **keys)
    before = names(a)
    shutil.copytree(a, b)
    train(b, 2, [0.6], **keys)
    assert names(a) == before
    assert best(2) in names(b)
    assert best(1) not in names(b)
    outdated = meta(b / 'epoch_2.pth')['outdated']
    assert sorted(outdated) == [name for name in before if 'best' in name]


@pytest.mark.parametrize('keys', [SCORE, BOTH])
def test_another_run_keeps_its_best_one(keys, tmp_path):
    """Also where the new folder has a file of the same name."""
    a, b = tmp_path / 'a', tmp_path / 'b'
    train(a, 1, [0.5], **keys)
    before = names(a)
    b.mkdir()
    (b / best(1)).touch()
    train(b, 2, [0.4], **keys, load_from=str(a / 'epoch_1.pth'))
    train(b, 3, [0.6], **keys)
    assert names(a) == before
    assert {best(1), best(3)} <= set(names(b))
    assert meta(b / 'epoch_3.pth')['outdated'] == []


PUBLISHED = dict(published_keys=['meta', 'state_dict'], **BOTH)


@pytest.mark.parametrize('moved', [True, False])
def test_what_is_published_is_this_runs_own(moved, tmp_path):
    a, b = tmp_path / 'a', tmp_path / 'b'
    train(a, 1, [0.5], **BOTH)
    train(a, 2, [0.4], **BOTH)
    before = names(a)
    if moved:
        a.rename(b)
        train(b, 2, [0.1], **PUBLISHED)
    else:
        load_from = str(a / 'epoch_2.pth')
        train(b, 2, [0.1], **PUBLISHED, load_from=load_from)
        assert names(a) == before
    published = [name.partition('-')[0] for name in names(b) if '-' in name]
    expected = ['best_other_epoch_1', 'best_score_epoch_1', 'epoch_2']
    assert published == (expected if moved else [])


@pytest.mark.parametrize(
    'keys, kept',
    [
        (dict(), ['best_old.pth', 'epoch_0.pth']),
        (dict(max_keep_ckpts=2), ['best_old.pth']),
        (SCORE, ['epoch_0.pth']),
    ],
)
def test_only_what_the_resumed_run_limits_is_removed(keys, kept, tmp_path):
    train(tmp_path, 1)
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    content['meta']['outdated'] = ['best_old.pth', 'epoch_0.pth']
    (tmp_path / 'epoch_1.pth.sha256').unlink()
    torch.save(content, tmp_path / 'epoch_1.pth')
    for name in content['meta']['outdated']:
        (tmp_path / name).touch()
    train(tmp_path, 2, **keys)
    assert names(tmp_path) == [*kept, 'epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize('first', [1, 2])
def test_one_name_for_all_checkpoints(first, tmp_path):
    """Also if the resumed run keeps fewer than the first."""
    one = dict(filename_tmpl='latest.pth')
    train(tmp_path, 1, **one, max_keep_ckpts=first)
    train(tmp_path, 2, **one, max_keep_ckpts=first)
    train(tmp_path, 2, **one, max_keep_ckpts=1)
    assert names(tmp_path) == ['latest.pth']
    train(tmp_path, 4, **one, max_keep_ckpts=1)
    assert names(tmp_path) == ['latest.pth']
    assert meta(tmp_path / 'latest.pth')['epoch'] == 4
    assert meta(tmp_path / 'latest.pth')['outdated'] == []


@pytest.mark.parametrize('fails', [True, False])
def test_folders_wait_as_files_do(fails, tmp_path):
    """A best checkpoint of DeepSpeed is a folder."""
    backend, folder = WholeFileBackend(), tmp_path / 'best.pth'
    folder.mkdir()
    (folder / 'part').touch()
    try:
        with backend.removing_last():
            backend.rmtree(folder)
            assert (folder / 'part').exists()
            if fails:
                raise OSError
    except OSError:
        pass
    assert folder.exists() == fails
