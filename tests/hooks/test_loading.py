"""Checkpoints a Runner loads are checked, however the model is wrapped."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner, load_checkpoint

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg
from tests.support.training import scene_teacher, tiny_scenes, training_config


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp('scenes'))


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return scene_teacher(tmp_path_factory.mktemp('teacher5'))


@pytest.fixture
def config(scenes, teacher, tmp_path):
    return training_config(scenes, tmp_path / 'run', teacher)


@pytest.fixture(scope='module')
def weights(scenes, teacher, tmp_path_factory):
    """State dict of a calibrated student."""
    torch.manual_seed(2)
    config = training_config(scenes, tmp_path_factory.mktemp('x'), teacher)
    model = MODELS.build(config.model)
    inputs = [torch.randn(2, 3, 64, 64)]
    calibrate(model, inputs, lambda x: model(x))
    return model.state_dict()


def as_file(state_dict, tmp_path):
    path = tmp_path / 'student.pth'
    torch.save(dict(state_dict=state_dict, meta={}), path)
    return str(path)


FLIPS = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
KEYS = ('img_id', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
AUGMENT = dict(
    type='TestTimeAug',
    transforms=[
        FLIPS,
        [dict(type='PackDetInputs', meta_keys=(*KEYS, 'ori_shape'))],
    ],
)


def augmented(config):
    """As ``tools/test.py --tta`` does."""
    config.model = ConfigDict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=9),
        module=config.model,
    )
    config.test_dataloader.dataset.pipeline[-1] = AUGMENT
    return config


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_augmented_tests_load_the_weights(config, weights, prefix, tmp_path):
    state = {prefix + key: value for key, value in weights.items()}
    config.load_from = as_file(state, tmp_path)
    runner = Runner.from_cfg(augmented(config))
    assert 0 <= runner.test()['coco/bbox_mAP'] <= 1
    assert isinstance(runner.model, BaseTTAModel)
    for key, value in runner.model.module.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_augmented_tests_with_ema(config, weights, tmp_path):
    config.custom_hooks.append(dict(type='EMAHook'))
    config.load_from = as_file(weights, tmp_path)
    assert 'coco/bbox_mAP' in Runner.from_cfg(augmented(config)).test()


def test_augmented_tests_refuse_a_foreign_file(config, tmp_path):
    config.load_from = as_file({'foo.weight': torch.ones(2, 2)}, tmp_path)
    with pytest.raises(RuntimeError, match='matches nothing'):
        Runner.from_cfg(augmented(config)).test()


def test_semi_supervised_detectors_load_a_detector(weights, tmp_path):
    """mmdet's load one file into both their student and their teacher."""
    semi = MODELS.build(
        dict(
            type='SemiBaseDetector',
            detector=quantized_cfg(),
            semi_train_cfg={},
        )
    )
    torch.manual_seed(3)
    detector = MODELS.build(quantized_cfg())
    path = as_file(detector.state_dict(), tmp_path)
    load_checkpoint(semi, path)
    for key, value in detector.state_dict().items():
        assert torch.equal(semi.student.state_dict()[key], value)


BROKEN = {
    'a weight': 'neck.fpn_convs.0.conv.weight',
    'a statistic': 'backbone.layer1.0.bn1.running_mean',
    'a head': 'bbox_head.retina_cls.bias',
}


def broken(weights, key, tmp_path):
    state = {k: v.clone() for k, v in weights.items()}
    state[key].flatten()[0] = torch.nan
    return as_file(state, tmp_path)


@pytest.mark.parametrize('what', BROKEN)
@pytest.mark.parametrize('mode', ['train', 'test'])
def test_nan_in_load_from(what, mode, config, weights, tmp_path):
    config.load_from = broken(weights, BROKEN[what], tmp_path)
    with pytest.raises(ValueError, match=f'NaN .*{BROKEN[what]}'):
        getattr(Runner.from_cfg(config), mode)()


def test_an_absurd_step_in_load_from(config, weights, tmp_path):
    key = 'neck.fpn_convs.0.conv.input_quantizer.log_scale'
    state = dict(weights, **{key: torch.full_like(weights[key], 80)})
    config.load_from = as_file(state, tmp_path)
    with pytest.raises(ValueError, match=rf'4e-18 to 1e\+08 .*\[.{key}'):
        Runner.from_cfg(config).train()


@pytest.mark.parametrize('part', ['backbone', 'neck', 'bbox_head', None])
@pytest.mark.parametrize('kind', ['GoRDetector', 'RetinaNet'])
def test_nan_in_init_cfg(kind, part, config, weights, tmp_path):
    keys = dict(
        backbone=BROKEN['a statistic'],
        neck=BROKEN['a weight'],
        bbox_head=BROKEN['a head'],
    )
    key = keys.get(part, BROKEN['a head'])
    init = dict(type='Pretrained', checkpoint=broken(weights, key, tmp_path))
    cfg = config.model if kind == 'GoRDetector' else quantized_cfg()
    cfg['bbox_head']['num_classes'] = 5
    if part:
        init['prefix'] = f'{part}.'
    (cfg[part] if part else cfg)['init_cfg'] = init
    model = MODELS.build(cfg)
    with pytest.raises(ValueError, match=f'NaN .*{key}|NaN .*{key[-9:]}'):
        model.init_weights()


@pytest.mark.parametrize('part', ['state_dict', 'ema_state_dict', 'optimizer'])
@pytest.mark.slow
def test_nan_in_what_is_resumed(part, config, tmp_path):
    config.custom_hooks.append(dict(type='EMAHook'))
    Runner.from_cfg(config).train()
    path = tmp_path / 'run' / 'epoch_1.pth'
    content = torch.load(path, weights_only=True)
    if part == 'optimizer':
        content[part]['state'][0]['exp_avg'].fill_(torch.nan)
        key = r'state\.0\.exp_avg'
    else:
        key = BROKEN['a weight']
        prefix = 'module.' if part.startswith('ema') else ''
        content[part][prefix + key].fill_(torch.nan)
    torch.save(content, path)
    config.resume, config.load_from = True, str(path)
    config.experiment_name = 'again'
    config.visualizer.name = 'again'
    with pytest.raises(ValueError, match=f'NaN .*{key}'):
        Runner.from_cfg(config).train()
