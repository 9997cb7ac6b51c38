"""Arms of a plan, trained for real: what they leave is understood."""

import pytest
import torch
import yaml
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from experiments.outcome import read_outcome
from experiments.plan import read_plan
from experiments.runs import build_runs
from experiments.sights import read_sight
from experiments.training import write_run
from mmgor.training_report.detections import STUDENT, look
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.training import tiny_scenes, training_config

pytestmark = pytest.mark.slow


def write_config(folder, name, model=None, hooks=()):
    """Students as in tests/support/training.py."""
    config = training_config(folder / 'scenes', folder / 'unset', {})
    config.param_scheduler = [dict(type='CosineAnnealingLR', T_max=1, end=1)]
    if model is not None:
        config.model = model
        config.custom_hooks = list(hooks)
    config.pop('experiment_name')  # of the folder, so that each is new
    config.dump(folder / f'{name}.py')
    return str(folder / f'{name}.py')


def trackers(*kinds):
    return {'visualizer.vis_backends': [dict(type=kind) for kind in kinds]}


@pytest.fixture(scope='module')
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp('plan')
    tiny_scenes(folder / 'scenes')
    calibration = dict(type='QuantCalibrationHook', num_batches=1)
    quantized = write_config(folder, 'quant', quantized_cfg(), [calibration])
    large = retinanet_cfg(channels=12, fpn=24)
    content = dict(
        data=dict(scenes=str(folder / 'scenes')),
        seeds=[0],
        epochs=1,
        bits=dict(W3={'model.neck.quant': dict(w_bits=3, a_bits=3)}),
        teachers=dict(
            teacher=dict(config=write_config(folder, 'large', large))
        ),
        arms=dict(
            ptq=dict(config=quantized, bits=['W3'], start='float', epochs=0),
            float=dict(
                config=write_config(folder, 'float', retinanet_cfg()),
                options=trackers('LocalVisBackend', 'TensorboardVisBackend'),
            ),
            gor=dict(
                config=write_config(folder, 'gor'),
                bits=['W3'],
                start='float',
                teachers=dict(big='teacher'),
                options={'model.teachers': dict(big={})},
            ),
        ),
    )
    (folder / 'plan.yaml').write_text(yaml.safe_dump(content))
    return read_plan(folder / 'plan.yaml', work_dir=folder)


@pytest.fixture(scope='module')
def trained(plan):
    """Arm -> its folder and outcome."""
    outcomes = {}
    for run in build_runs(plan):
        config = write_run(run, plan)
        cfg = Config.fromfile(config)
        # One process here: visualizers of one name would be one.
        cfg.visualizer.name = run.name
        Runner.from_cfg(cfg).train()
        outcome = read_outcome(config.parent, run.checkpoint)
        outcomes[run.key[1]] = config.parent, outcome
    return outcomes


@pytest.mark.parametrize('arm', ['teacher', 'float', 'gor', 'ptq'])
def test_outcomes_of_real_trainings(trained, arm):
    _, outcome = trained[arm]
    assert outcome.status == 'done'
    if outcome.reason:
        assert outcome.reason.startswith('no metric') and outcome.mAP is None
    else:
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


def test_a_sight_is_what_the_model_sees(plan, trained):
    """The file of the last evaluation, against another forward pass."""
    (run,) = (run for run in build_runs(plan) if run.key[1] == 'gor')
    sight = read_sight(plan, run)
    folder, _ = trained['gor']
    model = init_detector(
        str(folder / 'config.py'), str(folder / run.checkpoint), device='cpu'
    )
    want = look(model.cfg, model, 99, print, with_teachers=False)
    assert sight.size == want.size == len(sight.images)
    assert sight.classes == want.classes
    for a, b in zip(sight.images, want.images, strict=True):
        assert a.path == b.path
        for one, other in (
            (a.truth, b.truth),
            (a.found[STUDENT], b.found[STUDENT]),
        ):
            assert one.labels.tolist() == other.labels.tolist()
            torch.testing.assert_close(one.boxes, other.boxes)
            torch.testing.assert_close(one.scores, other.scores)
    assert any(len(seen.found[STUDENT]) for seen in sight.images)


def test_a_tracker_gets_the_scalars(trained):
    """TensorBoard, offline, by the options of an arm."""
    (file,) = trained['float'][0].glob('*/vis_data/events.out.*')
    events = EventAccumulator(str(file))
    events.Reload()
    assert {'loss', 'loss_cls', 'lr'} <= set(events.Tags()['scalars'])
