"""How a student may be trained in several processes, and how not."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMFullyShardedDataParallel
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from mmgor import strategies
from mmgor.hooks.student import unwrapped_model
from mmgor.strategies import SPLITTING, check_strategy
from tests.support import toy_game
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.toy_game import Toy, run


@pytest.mark.parametrize('name', SPLITTING)
def test_split_parameters_are_refused_by_name(name):
    key = 'strategy' if name.endswith('Strategy') else 'model_wrapper_cfg'
    cfg = Config({'model': quantized_cfg(), key: dict(type=name)})
    with pytest.raises(ValueError, match=f'{name}.*trains by DDP'):
        check_strategy(cfg)
    cfg[key].type = f'mmengine.{name}'
    cfg.model.type = f'mmgor.{cfg.model.type}'
    cfg.model.odd = dict(type=3)  # no class, and nobody's business here
    with pytest.raises(ValueError, match=f'{name}.*trains by DDP'):
        check_strategy(cfg)
    cfg.model = retinanet_cfg()  # no student
    check_strategy(cfg)


def test_other_strategies_are_taken():
    for name in ('DDPStrategy', 'SingleDeviceStrategy'):
        cfg = dict(model=quantized_cfg(), strategy=dict(type=name))
        check_strategy(Config(cfg))


def test_several_processes_need_gpus(monkeypatch):
    cfg = Config(dict(model=quantized_cfg(), launcher='pytorch'))
    monkeypatch.setattr(strategies, 'get_device', lambda: 'cpu')
    with pytest.raises(RuntimeError, match='leave out --launcher'):
        check_strategy(cfg)
    monkeypatch.setattr(strategies, 'get_device', lambda: 'cuda')
    check_strategy(cfg)


def test_hooks_refuse_a_wrapper_that_splits():
    """A training that was not started by mmgor's tools."""
    model = object.__new__(MMFullyShardedDataParallel)
    with pytest.raises(ValueError, match='MMFullyShardedDataParallel'):
        unwrapped_model(SimpleNamespace(model=model))


def test_flexible_runner_trains_as_the_runner(tmp_path, monkeypatch):
    def trained(runner, folder):
        monkeypatch.setattr(toy_game, 'Runner', runner)
        torch.manual_seed(0)
        optimizer = dict(type='AdamW', lr=0.01, weight_decay=1e-4)
        hooks = [dict(type='NonFiniteLossHook')]
        toy = Toy(change_at=5, factor=0.5)
        run(tmp_path / folder, optimizer, 12, model=toy, hooks=hooks)
        return toy.state_dict()

    one, other = trained(Runner, 'one'), trained(FlexibleRunner, 'other')
    assert one['gor_weighting.theta_kd'] < 0
    assert all(torch.equal(one[key], other[key]) for key in one)
