"""mmgor convert on configs with backbones of MMPretrain and timm."""

from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.backbones import float_model
from tests.support.conversion import whole, write_weights

IMPORTS = dict(imports=['mmpretrain.models'], allow_failed_imports=False)
TIMM = 'timm MobileNetV3'


def write(tmp_path, name, **more):
    model = float_model(name)
    if name == TIMM:
        model.backbone.pretrained = True
    path = tmp_path / 'float.py'
    whole(model, custom_imports=IMPORTS, **more).dump(path)
    return path


@pytest.fixture
def offline():
    """timm's download fails."""
    target = 'timm.models._builder.load_pretrained'
    with mock.patch(target, side_effect=AssertionError('a download')):
        yield


def test_timm_without_a_download(tmp_path, offline):
    """Its weights are downloaded by the training, and only then."""
    base, out, said = write(tmp_path, TIMM), tmp_path / 'student.py', []
    trial = convert(Request(str(base), out), said.append)
    assert any(line.startswith('offsets') for line in said)
    assert trial.still == []
    assert sum(share.macs for share in trial.shares) == 0
    cfg = Config.fromfile(out)
    assert cfg.custom_imports['imports'] == ['mmpretrain.models', 'mmgor']
    assert cfg.model.backbone.pretrained is True
    assert cfg.model.backbone.backbone == 'mmpretrain.TIMMBackbone'


def test_a_checkpoint_replaces_timm_s_weights(tmp_path, offline):
    base, out = write(tmp_path, TIMM), tmp_path / 'student.py'
    stock = Config.fromfile(base)
    stock.model.backbone.pretrained = False
    stock.dump(tmp_path / 'other.py')
    weights = write_weights(tmp_path / 'other.py')
    convert(Request(str(base), out, checkpoint=str(weights)), lambda _: None)
    cfg = Config.fromfile(out)
    assert cfg.model.backbone.pretrained is False
    assert len(quantized_layers(MODELS.build(cfg.model))) > 40


def test_layer_wise_rates_of_convnext(tmp_path):
    """As in mmdet's configs of ConvNeXt."""
    optimizer = dict(
        type='OptimWrapper',
        constructor='LearningRateDecayOptimizerConstructor',
        paramwise_cfg=dict(
            decay_rate=0.5, decay_type='layer_wise', num_layers=6
        ),
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    )
    base, out = write(tmp_path, 'ConvNeXt'), tmp_path / 'student.py'
    stock = Config.fromfile(base)
    stock.optim_wrapper = optimizer
    stock.dump(base)
    convert(Request(str(base), out), lambda _: None)
    cfg = Config.fromfile(out)
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    steps = {
        name: groups[id(parameter)]
        for name, parameter in model.named_parameters()
        if name.endswith('log_scale')
    }
    assert all(group['weight_decay'] == 0 for group in steps.values())
    first = 'backbone.downsample_layers.0.0.weight_quantizer.log_scale'
    head = 'bbox_head.retina_cls.weight_quantizer.log_scale'
    assert steps[first]['lr'] == pytest.approx(1e-4 * 0.5**7)
    assert steps[head]['lr'] == pytest.approx(1e-4)
