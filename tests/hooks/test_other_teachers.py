"""Thetas and the teachers' trained weights belong to a run."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from mmgor.hooks import GoRWeightHook
from mmgor.registry import MODELS
from tests.support.models import retinanet_cfg
from tests.support.training import tiny_scenes, training_config

FUSION = 'kd_heads.cls.fusion.logits'


def runner_of(resume=False, **teachers):
    heads = {k: SimpleNamespace(teachers=v) for k, v in teachers.items()}
    model = SimpleNamespace(kd_heads=heads)
    return SimpleNamespace(model=model, _resume=resume)


def saved(**teachers):
    checkpoint = dict(meta={}, state_dict={FUSION: 1, 'neck.weight': 2})
    GoRWeightHook().before_save_checkpoint(runner_of(**teachers), checkpoint)
    return checkpoint


def test_trained_weights_of_another_run_are_dropped():
    file = saved(cls=['a', 'b'])
    GoRWeightHook().after_load_checkpoint(runner_of(cls=['b', 'c']), file)
    assert file['state_dict'] == {'neck.weight': 2}


@pytest.mark.parametrize(
    'teachers',
    [
        dict(cls=['b', 'a'], box=['a']),
        dict(cls=['a', 'b'], box=['b']),
        dict(cls=['a', 'b'], box=['a', 'c']),
        dict(cls=['a', 'b']),
    ],
)
def test_resume_with_other_teachers(teachers):
    message = r"other teachers: expected .*, got \{'cls': \['a', 'b'\], 'box'"
    with pytest.raises(ValueError, match=message) as caught:
        GoRWeightHook().after_load_checkpoint(
            runner_of(resume=True, **teachers),
            saved(cls=['a', 'b'], box=['a']),
        )
    assert str(teachers) in str(caught.value)


@pytest.mark.parametrize('file', [saved(cls=['a']), saved(cls=[])])
def test_resume_keeps_everything(file):
    # A run without GoRWeightHook does not save the teachers' names.
    if not file['meta']['kd_teachers']['cls']:
        del file['meta']['kd_teachers']
    GoRWeightHook().after_load_checkpoint(
        runner_of(resume=True, cls=['a']), file
    )
    assert file['state_dict'] == {FUSION: 1, 'neck.weight': 2}


@pytest.fixture
def config(tmp_path):
    """A student that trains on scenes for one epoch of two iterations."""
    torch.manual_seed(1)
    cfg = retinanet_cfg(channels=12, fpn=24, classes=5)
    path = tmp_path / 'teacher.pth'
    torch.save(MODELS.build(cfg).state_dict(), path)
    teacher = dict(config=cfg, checkpoint=str(path))
    return training_config(
        tiny_scenes(tmp_path / 'scenes'), tmp_path / 'run', teacher
    )


def test_a_runner_resumes_with_the_same_teachers_only(config):
    head = dict(type='ScoreKDHead', teacher=['big', 'twin'], fusion='learned')
    config.model.teachers.twin = config.model.teachers.big
    config.model.kd_heads = ConfigDict(cls=head)
    config.optim_wrapper.paramwise_cfg.custom_keys['fusion.logits'] = dict(
        decay_mult=0.0
    )
    Runner.from_cfg(config).train()
    config.resume = True
    config.train_cfg.max_epochs = 2
    Runner.from_cfg(config).train()
    config.model.kd_heads.cls.teacher = ['twin', 'big']
    with pytest.raises(ValueError, match=r"expected .*\['twin', 'big'\].*got"):
        Runner.from_cfg(config).train()


def test_thetas_that_nobody_moves(config):
    del config.model.kd_heads['cls']  # which would ask for classes
    config.custom_hooks = [
        hook for hook in config.custom_hooks if hook.type != 'GoRWeightHook'
    ]
    with pytest.raises(RuntimeError, match='no hook moves the thetas of GoRW'):
        Runner.from_cfg(config).train()
    config.model.gor_weighting = ConfigDict(type='FixedWeighting')
    Runner.from_cfg(config).train()  # has none
