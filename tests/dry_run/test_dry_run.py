"""A dry run says what a training will do, and leaves nothing behind."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmgor.dry_run import dry_run
from mmgor.dry_run.description import optimizer_lines
from mmgor.dry_run.run import time_line
from mmgor.io.config_reader import read_config
from tests.support.training import config_file as write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('config'))


@pytest.fixture
def started(config, tmp_path, monkeypatch, capsys):
    """Start the tool in an empty folder; what it prints."""

    def start(*words):
        import train

        monkeypatch.chdir(tmp_path)
        words = ['train.py', str(config), '--dry-run', *words]
        monkeypatch.setattr(sys, 'argv', words)
        train.main()
        os.environ.pop('LOCAL_RANK', None)
        return capsys.readouterr().out

    return start


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_it_says_what_will_be_trained(started, tmp_path):
    shown = started()
    for line in (
        'model: GoRRetinaNet, 0.216 M parameters, 0.216 M of them trained',
        '  kd_heads.cls: LogitKDHead, bbox_head of big -> bbox_head',
        '  gor_weighting: GoRWeighting',
        # Two prediction layers, the first convolution: 8 bits.
        '  backbone     W4A4: 19, W8A8: 1; 0.091 MB',
        '  bbox_head    W4A4: 2, W8A8: 2; 0.015 MB',
        'optimizer: AdamW in OptimWrapper',
        # 32 quantized layers: one for the weight, one for the input.
        '  lr 0.001, weight decay 0: 63 step sizes, 2 thetas',
        'data: 8 images to train on, 4 a step; 2 iterations in 1 epochs',
        '  4 images to evaluate on, every 99 epochs',
        'in float: 0.0% of the weights and 0.0% of the multiply-accumulates',
    ):
        assert f'\n{line}\n' in shown, line
    assert re.search(
        r'\n  teacher big: RetinaNet, 0.469 M .*teacher.pth', shown
    )
    assert re.search(r'\nhooks: .*QuantCalibrationHook, GoRWeightHook', shown)
    assert re.search(
        r'\nmemory: at most \d+\.\d\d GB in this process\n', shown
    )
    assert re.search(r'\ntime: .* for 2 steps .*, from step 2, ', shown)
    assert contents(tmp_path) == {}


def test_its_steps_are_those_of_the_training(config, started, tmp_path):
    cfg = read_config(config)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.visualizer.name = 'whole training'
    Runner.from_cfg(cfg).train()
    (log,) = tmp_path.glob('run/2*/vis_data/scalars.json')
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [row['loss'] for row in logged if 'loss' in row]
    first, second = map(float, re.findall(r', loss (.*)', started()))
    # The log has means since the first iteration.
    assert losses == pytest.approx([first, (first + second) / 2], abs=1e-4)


def test_a_resumed_run_stays_as_it_is(config, started, tmp_path):
    cfg = read_config(config)
    cfg.work_dir = str(tmp_path / 'run')
    Runner.from_cfg(cfg).train()
    before = contents(tmp_path)
    options = '--work-dir run --resume --cfg-options train_cfg.max_epochs=3'
    shown = started(*options.split())
    assert '6 iterations in 3 epochs, 2 of them done\n' in shown
    assert ' for 4 steps ' in shown
    assert contents(tmp_path) == before


def test_checkpoints_of_another_folder_are_not_written(config, tmp_path):
    cfg = read_config(config)
    cfg.work_dir = str(tmp_path / 'run')
    saving = dict(by_epoch=False, interval=1, out_dir=str(tmp_path / 'other'))
    cfg.default_hooks.checkpoint.update(saving)
    dry_run(cfg, Runner.from_cfg)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize('loop', [dict(val_interval=2), dict(max_iters=2)])
def test_it_stops_before_an_evaluation(config, loop, capsys):
    cfg = read_config(config)
    cfg.train_cfg = dict(
        dict(type='IterBasedTrainLoop', max_iters=9, val_interval=99), **loop
    )
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=9)
    cfg.work_dir = 'unused'
    cfg.visualizer.name = f'stops {loop}'
    dry_run(cfg, Runner.from_cfg)
    shown = capsys.readouterr().out
    assert ' steps without evaluation, from step 2, ' in shown


def test_it_fails_as_the_training_would(config):
    cfg = read_config(config)
    cfg.model.kd_heads.neck.student_channels = 8
    cfg.work_dir = 'unused'
    with pytest.raises(ValueError, match='student_channels'):
        dry_run(cfg, Runner.from_cfg)


def test_calibration_alone_has_no_step(config, capsys):
    cfg = read_config(config)
    cfg.train_cfg = dict(type='CalibrationLoop', max_epochs=0)
    cfg.work_dir = 'unused'
    dry_run(cfg, Runner.from_cfg)
    assert 'there is no step to take' in capsys.readouterr().out


def test_what_no_group_has_is_told():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD([model[0].weight], 0.1, weight_decay=0.01)
    assert optimizer_lines(OptimWrapper(optimizer), model) == [
        'optimizer: SGD in OptimWrapper',
        '  lr 0.1, weight decay 0.01: 1 weights',
        '  in no group, so not trained: 1 biases, 2 norms',
    ]


def test_time_of_the_first_step_counts_if_there_is_no_other():
    assert time_line([9.0], 3).startswith('time: 0:00:27 ')
    assert time_line([9.0, 2.0], 3).startswith('time: 0:00:06 ')
    assert time_line([9.0, 2.0, 4.0], 3).startswith('time: 0:00:09 ')
