"""A run has a good checkpoint at any moment."""

import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from mmgor.hooks import SafeCheckpointHook, safe_checkpoint_hook
from mmgor.io import checksums
from mmgor.io.checksums import check_intact, checksum_path
from mmgor.io.resume import find_checkpoint
from tests.support.models import quantized_cfg
from tests.support.training import tiny_scenes, training_config

STEPS = 6


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp('scenes'))


def run_config(scenes, work_dir, **checkpoint):
    """Six iterations of a tiny student without a teacher."""
    config = training_config(scenes, work_dir, {})
    model = quantized_cfg()
    model.bbox_head.num_classes = 5
    config.model = model
    config.custom_hooks = [
        dict(type='QuantCalibrationHook', num_batches=1),
        dict(type='EMAHook'),
    ]
    config.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=STEPS, val_interval=99
    )
    config.train_dataloader.sampler = dict(type='InfiniteSampler')
    config.default_hooks.checkpoint = {
        **dict(type='SafeCheckpointHook', by_epoch=False),
        **dict(interval=1, max_keep_ckpts=2),
        **checkpoint,
    }
    return config


def train(config):
    config.experiment_name = config.visualizer.name = os.urandom(4).hex()
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def straight(scenes, tmp_path_factory):
    """A run without interruption."""
    work_dir = tmp_path_factory.mktemp('straight')
    train(run_config(scenes, work_dir))
    return work_dir


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


def last(number):
    return [
        f'iter_{n}.pth{end}'
        for n in (number - 1, number)
        for end in ('', '.sha256')
    ]


def test_two_are_kept_with_their_digests(straight):
    assert names(straight) == last(STEPS)
    for path in straight.glob('*.pth'):
        assert checksum_path(path).read_text().endswith(f'  {path.name}\n')
        check_intact(path)
    assert find_latest_checkpoint(straight).endswith(f'iter_{STEPS}.pth')
    assert not list(straight.glob('.*'))


def trained_state(work_dir):
    content = torch.load(work_dir / f'iter_{STEPS}.pth', weights_only=True)
    return {
        key: content[key]
        for key in ('state_dict', 'ema_state_dict', 'optimizer')
    }


def assert_same(a, b, key=''):
    if isinstance(a, dict):
        assert list(a) == list(b), key
        for name in a:
            assert_same(a[name], b[name], f'{key}.{name}')
    elif isinstance(a, list):
        assert_same(dict(enumerate(a)), dict(enumerate(b)), key)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), key
    else:
        assert a == b, key


# Where a process kills itself: a function, and in which of its calls.
POINTS = {
    'half': ('write', 4),
    'whole': ('os.fsync', 10),
    'digest': ('os.replace', 11),
    'removing': ('unlink', 1),
    'first': ('write', 1),
}


def die_at(name, number):
    """Patch a process that is about to train."""
    count = iter(range(1, number))

    def dying(stock):
        def call(*args):
            if next(count, None) is None:
                if name == 'write':
                    path, content = args
                    stock(path, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return stock(*args)

        return call

    if name == 'write':
        checksums.Path.write_bytes = dying(checksums.Path.write_bytes)
    elif name == 'unlink':
        backend = safe_checkpoint_hook.WholeFileBackend
        backend.remove = dying(backend.remove)
    else:
        function = name.partition('.')[2]
        setattr(os, function, dying(getattr(os, function)))


def in_child(function):
    """Run it in a process of its own; give how that ended."""
    pid = os.fork()
    if not pid:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize('point', POINTS)
@pytest.mark.slow
def test_a_kill_at_any_point_loses_nothing(point, scenes, straight, tmp_path):
    config = run_config(scenes, tmp_path / 'run', max_keep_ckpts=1)

    def until_killed():
        die_at(*POINTS[point])
        train(config)

    assert in_child(until_killed) == -signal.SIGKILL
    found = find_checkpoint(tmp_path / 'run')
    assert (found is None) == (point == 'first')
    config.resume = True
    train(config)
    assert_same(trained_state(tmp_path / 'run'), trained_state(straight))
    assert names(tmp_path / 'run') == last(STEPS)[-2:]
    assert not list((tmp_path / 'run').glob('.*'))


@pytest.fixture
def work_dir(straight, tmp_path):
    return shutil.copytree(straight, tmp_path / 'run')


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('digest', [True, False])
def test_a_damaged_one_is_passed_over_by_name(work_dir, digest, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmgor.io.resume.print_log', lambda line, **_: lines.append(line)
    )
    for path in work_dir.glob('*.sha256') if not digest else ():
        path.unlink()
    flip(work_dir / 'iter_6.pth')
    assert find_checkpoint(work_dir) == str(work_dir / 'iter_5.pth')
    assert 'iter_6.pth is skipped' in lines[0]
    assert 'is damaged' in lines[0]
    assert 'iter_5.pth, the newest good' in lines[1]
    flip(work_dir / 'iter_5.pth')
    assert find_checkpoint(work_dir) is None


@pytest.mark.parametrize('note', [None, '', 'gone/iter_9.pth', 'iter_6.pth'])
def test_without_a_good_last_checkpoint(work_dir, note):
    """As mmengine's hook leaves it when it is killed, or when it moved."""
    (work_dir / 'last_checkpoint').unlink()
    if note is not None:
        (work_dir / 'last_checkpoint').write_text(note)
    shutil.copy(work_dir / 'iter_5.pth', work_dir / 'best_map_iter_5.pth')
    (work_dir / 'empty_1.pth').touch()
    os.utime(work_dir / 'iter_5.pth', (1, 1))
    assert find_checkpoint(work_dir) == str(work_dir / 'iter_6.pth')


def test_what_mmdets_tool_drops_is_taken_from_the_file(
    scenes, straight, tmp_path
):
    """Its --resume sets load_from=None, also where nothing is to resume."""
    config = run_config(scenes, tmp_path / 'run')
    config.load_from = str(straight / 'iter_6.pth')
    config.dump(tmp_path / 'config.py')
    config = Config.fromfile(tmp_path / 'config.py')
    config.resume, config.load_from = True, None
    hook, runner = SafeCheckpointHook(), Runner.from_cfg(config)
    hook.before_run(runner)
    assert runner._load_from == str(straight / 'iter_6.pth')
    assert not runner._resume


def test_best_ones(scenes, tmp_path, monkeypatch):
    """The old one goes when the new one is complete."""
    config = run_config(scenes, tmp_path / 'run', save_best='coco/bbox_mAP')
    config.train_cfg.val_interval = 2
    scores, seen = iter((0.1, 0.3, 0.2)), []
    monkeypatch.setattr(
        'mmdet.evaluation.CocoMetric.compute_metrics',
        lambda *_: dict(bbox_mAP=next(scores)),
    )
    stock = safe_checkpoint_hook.write_checkpoint

    def write(path, content):
        stock(path, content)
        seen.append([n for n in names(tmp_path / 'run') if 'best' in n])

    monkeypatch.setattr(safe_checkpoint_hook, 'write_checkpoint', write)
    train(config)
    both = [f'best_coco_bbox_mAP_iter_{n}.pth' for n in (2, 4)]
    assert [n for n in names(tmp_path / 'run') if 'best' in n] == [
        both[1],
        f'{both[1]}.sha256',
    ]
    assert any(set(both) <= set(found) for found in seen)


@pytest.mark.slow
def test_a_kill_leaves_no_older_best_one(scenes, tmp_path, monkeypatch):
    config = run_config(
        scenes, tmp_path / 'run', interval=2, save_best='coco/bbox_mAP'
    )
    config.train_cfg.val_interval = 2
    scores = iter((0.1, 0.3))
    monkeypatch.setattr(
        'mmdet.evaluation.CocoMetric.compute_metrics',
        lambda *_: dict(bbox_mAP=next(scores, 0.2)),
    )

    def until_killed():
        die_at('unlink', 2)  # the first call only puts it off
        train(config)

    assert in_child(until_killed) == -signal.SIGKILL
    left = [n for n in names(tmp_path / 'run') if n.endswith('.pth')]
    both = [f'best_coco_bbox_mAP_iter_{n}.pth' for n in (2, 4)]
    assert left == [*both, 'iter_2.pth', 'iter_4.pth']
    config.resume, scores = True, iter(())
    train(config)
    assert names(tmp_path / 'run') == [
        f'{name}{end}'
        for name in (both[1], 'iter_4.pth', 'iter_6.pth')
        for end in ('', '.sha256')
    ]


@pytest.mark.parametrize('own', [True, False])
def test_older_ones_of_another_run_stay(own, scenes, work_dir, tmp_path):
    folder = work_dir if own else tmp_path / 'other'
    folder.mkdir(exist_ok=True)
    (folder / 'iter_4.pth').touch()  # as if a kill had left it
    config = run_config(scenes, folder)
    config.resume, config.load_from = True, str(work_dir / 'iter_6.pth')
    train(config)
    assert (folder / 'iter_4.pth').exists() != own


def test_a_file_can_name_only_checkpoints_of_its_folder():
    hook, runner = SafeCheckpointHook(), SimpleNamespace(_resume=True)
    named = ['../../a.pth', '..', 'scenes.json', '/b.pth']
    hook.after_load_checkpoint(runner, dict(meta=dict(outdated=named)))
    assert hook._outdated == ['a.pth', 'b.pth']


def test_a_full_disk_leaves_the_last_one(work_dir, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(checksums.Path, 'write_bytes', full)
    backend = safe_checkpoint_hook.WholeFileBackend()
    with pytest.raises(OSError, match='No space'):
        backend.put(b'new', work_dir / 'iter_6.pth')
    check_intact(work_dir / 'iter_6.pth')
    assert names(work_dir) == last(STEPS)


def test_published_and_other_backends(scenes, tmp_path, capsys):
    config = run_config(
        scenes,
        tmp_path / 'run',
        published_keys=['meta', 'state_dict'],
        out_dir=str(tmp_path / 'out'),
        interval=9,
    )
    train(config)
    published = list((tmp_path / 'out' / 'run').glob('iter_6-*.pth'))
    (path,) = [p for p in published if checksum_path(p).is_file()]
    assert set(torch.load(path, weights_only=True)) == {'meta', 'state_dict'}
    hook = SafeCheckpointHook(backend_args=dict(backend='local'))
    hook.before_train(Runner.from_cfg(run_config(scenes, tmp_path / 'x')))
    assert type(hook.file_backend).__name__ == 'LocalBackend'
