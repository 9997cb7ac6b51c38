"""tools/train.py and tools/test.py do what mmdet's own do."""

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.runner import Runner

from mmgor.compat import NOISY_LOG
from tests.support.training import config_file as write_config

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
needs_mmdet_tools = pytest.mark.skipif(
    not MMDET_TOOLS.is_dir(), reason='mmdet was installed without its tools'
)


@pytest.fixture(scope='module')
def config_file(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('config'))


class Stop(Exception):
    """Raised instead of building a runner, with its config."""


def load_tool(path):
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def final_config(path, argv, monkeypatch):
    """The config that a tool hands to the runner."""

    def stop(cfg):
        raise Stop(cfg)

    monkeypatch.setattr(Runner, 'from_cfg', stop)
    monkeypatch.setattr('mmgor.strategies.get_device', lambda: 'cuda')
    monkeypatch.setattr(sys, 'argv', [path.name, *map(str, argv)])
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    with pytest.raises(Stop) as caught:
        load_tool(path).main()
    # The tools set it; monkeypatch would not know to remove it.
    rank = os.environ.pop('LOCAL_RANK', None)
    return caught.value.args[0].to_dict(), rank


def normalised(config):
    """mmdet spells its default work directory ./work_dirs/NAME."""
    config['work_dir'] = str(Path(config['work_dir']))
    return config


@needs_mmdet_tools
@pytest.mark.parametrize(
    'argv',
    [
        [],
        ['--work-dir', 'w'],
        ['--amp'],
        ['--auto-scale-lr'],
        ['--resume'],
        ['--resume', 'epoch_1.pth'],
        ['--cfg-options', 'train_cfg.max_epochs=3', 'work_dir=x'],
        ['--cfg-options', 'a=[1,2]', 'b=(3,4)', 'c="[(5,6),(7,8)]"', 'd=s'],
        ['--launcher', 'none', '--local_rank', '3'],
        ['--launcher', 'pytorch', '--local-rank', '1'],
    ],
    ids=' '.join,
)
def test_train_flags(argv, config_file, monkeypatch):
    # With --amp, a CPU gets another wrapper than mmdet's, which refuses CPUs.
    monkeypatch.setattr('mmengine.device.get_device', lambda: 'cuda')
    argv = [config_file, *argv]
    ours = final_config(TOOLS / 'train.py', argv, monkeypatch)
    theirs = final_config(MMDET_TOOLS / 'train.py', argv, monkeypatch)
    assert normalised(ours[0]) == normalised(theirs[0])
    assert ours[1] == theirs[1]


@needs_mmdet_tools
@pytest.mark.parametrize(
    'argv',
    [
        [],
        ['--work-dir', 'w', '--out', 'o.pkl'],
        ['--show', '--wait-time', '0.5'],
        ['--show-dir', 'images'],
        ['--cfg-options', 'test_evaluator.metric=[bbox]'],
        ['--tta'],
        ['--tta', '--cfg-options', 'tta_model.type=DetTTAModel'],
        ['--launcher', 'pytorch', '--local_rank', '1'],
    ],
    ids=' '.join,
)
@pytest.mark.filterwarnings('ignore:.*tta_.*in.*config')
def test_test_flags(argv, config_file, monkeypatch):
    argv = [config_file, 'epoch_1.pth', *argv]
    ours = final_config(TOOLS / 'test.py', argv, monkeypatch)
    theirs = final_config(MMDET_TOOLS / 'test.py', argv, monkeypatch)
    assert normalised(ours[0]) == normalised(theirs[0])
    assert ours[1] == theirs[1]


@pytest.mark.parametrize(
    'argv, line',
    [
        (['tools/train.py', 'a.py'], 'python tools/train.py a.py --resume'),
        (
            ['x/.mim/tools/train.py', 'a b.py', '--resume', 'c.pth', '--amp'],
            "mmgor train 'a b.py' --amp --resume",
        ),
        (
            ['train.py', '--resume', '--work-dir', 'w', 'a.py'],
            'python train.py --work-dir w a.py --resume',
        ),
        (
            ['train.py', '--resume=c.pth', 'a.py'],
            'python train.py a.py --resume',
        ),
    ],
)
def test_how_to_go_on(argv, line):
    assert load_tool(TOOLS / 'train.py').resume_command(argv) == line


def test_a_resumed_run_has_its_seed(config_file, tmp_path, monkeypatch):
    """mmengine would shuffle by another one until it reads the checkpoint."""
    last = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta=dict(seed=11)), last)
    argv = [config_file, '--resume', last, '--cfg-options']
    argv += ['randomness.seed=None']
    config, _ = final_config(TOOLS / 'train.py', argv, monkeypatch)
    assert config['randomness']['seed'] == 11


def test_out_must_be_a_pickle(config_file, monkeypatch, capsys):
    argv = ['test.py', str(config_file), 'x.pth', '--out', 'x.json']
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit):
        load_tool(TOOLS / 'test.py').main()
    assert 'expected a .pkl file, got x.json' in capsys.readouterr().err


def run_tool(name, *argv, cwd):
    """As a user would: another process, nothing on the path."""
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    return subprocess.run(
        [sys.executable, str(TOOLS / name), *map(str, argv)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope='module')
def trained(config_file, tmp_path_factory):
    cwd = tmp_path_factory.mktemp('train')
    done = run_tool('train.py', config_file, '--work-dir', 'run', cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    # On the maintained fork, mmdet names a package that it can use.
    told = re.sub(
        r'.*faster_coco_eval.*\n  warnings.warn\(\n', '', done.stderr
    )
    assert 'Warning' not in told
    assert not any(text in done.stdout for text in NOISY_LOG)
    return cwd / 'run'


def predictions(config_file, checkpoint, folder):
    """Scores and boxes that tools/test.py writes; the teacher is gone."""
    done = run_tool(
        'test.py',
        *(config_file, checkpoint, '--work-dir', 'test'),
        *('--out', 'boxes.pkl', '--cfg-options'),
        *('model.teachers.big.checkpoint=gone.pth', 'log_level=INFO'),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (scores,) = (folder / 'test').glob('2*/*.json')
    assert 0 <= json.loads(scores.read_text())['coco/bbox_mAP'] <= 1
    return pickle.loads((folder / 'boxes.pkl').read_bytes())


@pytest.mark.slow
def test_test_reads_what_train_and_publish_wrote(
    trained, config_file, tmp_path
):
    (tmp_path / 'full').mkdir()
    full = predictions(config_file, trained / 'epoch_1.pth', tmp_path / 'full')
    student = tmp_path / 'student.pth'
    done = run_tool(
        'publish_student.py', trained / 'epoch_1.pth', student, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    published = predictions(config_file, student, tmp_path)
    assert len(full) == len(published) == 4
    for want, got in zip(full, published):
        for key in ('scores', 'labels', 'bboxes'):
            a, b = want['pred_instances'][key], got['pred_instances'][key]
            assert len(a) > 0
            torch.testing.assert_close(b, a, rtol=0, atol=0)


@pytest.mark.slow
def test_plot_weights_draws_the_run(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'curves.png'
    monkeypatch.setattr(sys, 'argv', ['x', str(trained), '--out', str(out)])
    load_tool(TOOLS / 'plot_weights.py').main()
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_bytes()[:4] == b'\x89PNG'
