"""Configs of a plan, trained for real: what they leave is understood."""

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.runner import Runner

from mmgor.ledger.outcome import read_outcome
from mmgor.ledger.plan import read_plan
from mmgor.ledger.runs import build_runs, write_run
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.training import dataset, tiny_scenes, training_config


def write_config(folder, name, model=None, hooks=()):
    """Students as in tests/helpers.py, in the form a plan fills in."""
    config = training_config(folder / 'scenes', folder / 'unset', {})
    pipeline = dataset(folder, 'eval')['pipeline']
    evaluation = [pipeline[0], pipeline[2], pipeline[1], pipeline[3]]
    for split in ('val', 'test'):
        config[f'{split}_dataloader'].dataset.pipeline = evaluation
    config.param_scheduler = [dict(type='CosineAnnealingLR', T_max=1, end=1)]
    if model is not None:
        config.model = model
        config.custom_hooks = list(hooks)
    config.pop('experiment_name')  # of the folder, so that each is new
    config.dump(folder / f'{name}.py')
    return str(folder / f'{name}.py')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Name of the run -> it, its folder and what came of it."""
    folder = tmp_path_factory.mktemp('plan')
    tiny_scenes(folder / 'scenes')
    calibration = dict(type='QuantCalibrationHook', num_batches=1)
    arms = dict(
        ptq=dict(
            config=write_config(
                folder, 'quant', quantized_cfg(), [calibration]
            ),
            bits=['W3'],
            start='float',
            epochs=0,
        ),
        float=dict(config=write_config(folder, 'float', retinanet_cfg())),
        gor=dict(
            config=write_config(folder, 'gor'),
            bits=['W3'],
            start='float',
            teachers=dict(big='teacher'),
            options={'model.teachers': dict(big={})},
        ),
    )
    large = retinanet_cfg(channels=12, fpn=24)
    content = dict(
        results=str(folder / 'results.jsonl'),
        data=dict(scenes=str(folder / 'scenes')),
        seeds=[0],
        epochs=1,
        bits=dict(W3={'model.neck.quant': dict(w_bits=3, a_bits=3)}),
        teachers=dict(
            teacher=dict(config=write_config(folder, 'large', large))
        ),
        arms=arms,
    )
    (folder / 'plan.yaml').write_text(yaml.safe_dump(content))
    plan = read_plan(folder / 'plan.yaml')
    outcomes = {}
    for run in build_runs(plan):
        config = write_run(run, plan)
        cfg = Config.fromfile(config)
        # One process here: visualizers of one name would be one.
        cfg.visualizer.name = run.name
        Runner.from_cfg(cfg).train()
        outcome = read_outcome(run, config.parent, 0)
        outcomes[run.key[1]] = config.parent, outcome
    return outcomes


@pytest.mark.parametrize('arm', ['teacher', 'float', 'gor', 'ptq'])
def test_outcomes_of_real_trainings(trained, arm):
    _, outcome = trained[arm]
    assert (outcome.status, outcome.reason) == ('done', '')
    assert 0 <= outcome.mAP <= outcome.AP50 <= 1
    weights = outcome.gor_w_task, outcome.gor_w_kd
    assert all(isinstance(w, float) for w in weights) is (arm == 'gor')


def test_a_calibrated_arm_keeps_its_weights(trained):
    start, ptq = (
        torch.load(trained[arm][0] / name, weights_only=True)['state_dict']
        for arm, name in (('float', 'epoch_1.pth'), ('ptq', 'epoch_0.pth'))
    )
    for key, value in start.items():
        assert torch.equal(ptq[key], value), key
    weight = 'neck.fpn_convs.0.conv.weight_quantizer.'
    assert ptq[weight + 'qmax'] == 3
    assert (ptq[weight + 'log_scale'] != 0).all()
