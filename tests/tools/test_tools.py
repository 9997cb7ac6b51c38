import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from plot_weights import find_scalars
from publish_student import publish
from train import apply_flags

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def tool(name, *args):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', str(TOOLS / name), *args],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_all_flags_of_mmdet_are_there(name):
    """Of the installed version."""
    import mmdet

    stock = Path(mmdet.__file__).parent / '.mim' / 'tools' / name
    if not stock.is_file():
        pytest.skip('this mmdet ships no tools')
    import re

    flags = set(re.findall(r"'(--[a-z-]+)'", stock.read_text()))
    assert len(flags) >= 6
    shown = tool(name, '--help').stdout
    assert all(flag in shown for flag in flags), flags


@pytest.mark.slow
def test_missing_config_says_what_was_expected():
    done = tool('train.py', 'no/such.py')
    assert done.returncode
    assert 'config not found: no/such.py; expected a .py file' in done.stderr


@pytest.mark.parametrize(
    'device, wrapper',
    [('cuda', 'AmpOptimWrapper'), ('cpu', 'Bfloat16OptimWrapper')],
)
def test_flags_reach_the_config(tmp_path, monkeypatch, device, wrapper):
    monkeypatch.setitem(apply_flags.__globals__, 'get_device', lambda: device)
    cfg = Config(
        dict(
            work_dir=str(tmp_path),
            optim_wrapper=dict(type='AmpOptimWrapper', loss_scale=512.0),
            auto_scale_lr=dict(enable=False, base_batch_size=16),
        )
    )
    apply_flags(cfg, Namespace(amp=True, auto_scale_lr=True, resume='auto'))
    assert cfg.optim_wrapper.type == wrapper
    assert ('loss_scale' in cfg.optim_wrapper) == (device == 'cuda')
    assert cfg.auto_scale_lr.enable
    assert cfg.resume and cfg.load_from is None
    apply_flags(cfg, Namespace(amp=False, auto_scale_lr=False, resume='x'))
    assert cfg.load_from == 'x'


def test_resume_before_the_first_checkpoint_keeps_load_from(tmp_path):
    args = Namespace(amp=False, auto_scale_lr=False, resume='auto')
    cfg = Config(dict(work_dir=str(tmp_path), load_from='float.pth'))
    apply_flags(cfg, args)
    assert (cfg.resume, cfg.load_from) == (False, 'float.pth')
    torch.save(dict(message_hub={}), tmp_path / 'epoch_1.pth')
    apply_flags(cfg, args)
    assert cfg.resume and cfg.load_from == str(tmp_path / 'epoch_1.pth')


def test_auto_scale_lr_needs_a_base():
    with pytest.raises(RuntimeError, match='expected auto_scale_lr=dict'):
        apply_flags(
            Config(dict()),
            Namespace(amp=False, auto_scale_lr=True, resume=None),
        )


def test_publish_on_a_full_disk_keeps_the_old_file(tmp_path, request):
    source, target = tmp_path / 'epoch_1.pth', tmp_path / 'student.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(100_000))), source)
    target.write_text('old')
    request.getfixturevalue('small_disk')
    with pytest.raises(OSError, match='too large'):
        publish(source, target)
    assert target.read_text() == 'old'
    assert {path.name for path in tmp_path.iterdir()} == {
        'epoch_1.pth',
        'student.pth',
    }


def test_publish_keeps_the_student_only(tmp_path):
    source, target = tmp_path / 'epoch_1.pth', tmp_path / 'student.pth'
    state = {
        'module.backbone.w': torch.ones(2),  # of a DDP wrapper
        'kd_heads.a.w': torch.ones(3),
        'gor_weighting.theta_kd': torch.ones(()),
    }
    meta = dict(dataset_meta=dict(classes=('a', 'b')), cfg='secret path')
    torch.save(dict(state_dict=state, meta=meta, optimizer=dict(x=1)), source)
    done = publish(source, target)
    assert (done['kept'], done['dropped']) == (1, 2)
    code = (
        'import sys, torch; c = torch.load(sys.argv[1], weights_only=True);'
        'print(sorted(c), list(c["state_dict"]), c["meta"]["dataset_meta"])'
    )
    read = subprocess.run(
        [sys.executable, '-c', code, str(target)],
        capture_output=True,
        text=True,
    )
    assert read.stdout.strip() == (
        "['meta', 'state_dict'] ['backbone.w'] {'classes': ['a', 'b']}"
    )


def test_publish_refuses_what_it_cannot_use(tmp_path):
    path = tmp_path / 'x.pth'
    with pytest.raises(FileNotFoundError, match='checkpoint not found'):
        publish(path, tmp_path / 'y.pth')
    torch.save(dict(foo=1), path)
    with pytest.raises(ValueError, match='is the input'):
        publish(path, path)
    with pytest.raises(ValueError, match='has no state_dict'):
        publish(path, tmp_path / 'y.pth')
    expanded = torch.zeros(1).expand(10**11)
    for value, message in (
        (3, r"entries that are not tensors: \{'a': 'int'\}"),
        (torch.eye(2).to_sparse(), 'a is a tensor of torch.sparse_coo'),
        (expanded, '4 bytes are stored for weights of 400000000000'),
        (torch.tensor([1.0, math.nan]), r"NaN or infinity in .*: \['a'\]"),
        (torch.tensor(-math.inf), r"NaN or infinity in .*: \['a'\]"),
    ):
        torch.save(dict(state_dict=dict(a=value)), path)
        with pytest.raises(ValueError, match=message):
            publish(path, tmp_path / 'y.pth')
    assert not (tmp_path / 'y.pth').exists()


def test_a_diverged_kd_head_does_not_keep_a_student_back(tmp_path):
    path, target = tmp_path / 'x.pth', tmp_path / 'y.pth'
    state = {'kd_heads.a.w': torch.tensor(math.nan), 'neck.w': torch.ones(2)}
    torch.save(dict(state_dict=state), path)
    assert publish(path, target)['kept'] == 1


def test_publish_reads_classes_where_there_are_some(tmp_path):
    path, target = tmp_path / 'x.pth', tmp_path / 'y.pth'
    for meta in (None, {}, dict(dataset_meta=None)):
        torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=meta), path)
        assert publish(path, target)['kept'] == 1
        assert list(torch.load(target)['meta']) == ['mmgor_version']
    names = dict(dataset_meta=dict(classes='person'))
    for meta in ('x', [1], dict(dataset_meta=[1]), names):
        torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=meta), path)
        message = (
            r'has the (meta .*; expected dict|string .*; expected a tuple)'
        )
        with pytest.raises(ValueError, match=message):
            publish(path, target)


def test_plot_weights_finds_the_newest_run(tmp_path):
    for stamp in ('20260101', '20260102'):
        folder = tmp_path / stamp / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(
            json.dumps(dict(gor_w_kd=1.0, gor_w_task=1.0, step=1))
        )
    assert '20260102' in str(find_scalars(tmp_path))
    # A newer run that has no weights to plot does not count.
    other = tmp_path / '20260103' / 'vis_data'
    other.mkdir(parents=True)
    (other / 'scalars.json').write_text(json.dumps(dict(loss=1.0)))
    assert '20260102' in str(find_scalars(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'no scalars\.json with gor'):
        find_scalars(tmp_path / '20260101' / 'gone')
