"""Ranges are only loaded together with their weight, however it is loaded."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import load_checkpoint, load_state_dict
from torch import nn

from mmgor.quantization import calibrate, uncalibrated_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS


class Net(nn.Sequential):
    def __init__(self, channels=3, groups=1, **quant):
        super().__init__(
            nn.Conv2d(channels, 4, 3),
            nn.ReLU(),
            nn.Conv2d(4, 4, 1, groups=groups),
            nn.ConvTranspose2d(4, 4, 1, groups=groups),
        )
        quantize_layers(self, QuantPolicy(**quant), set())


def trained(channels=3, groups=1, scale=1.0, **quant):
    torch.manual_seed(0)
    net = Net(channels, groups, **quant)
    for layer in (net[0], net[2], net[3]):
        nn.init.normal_(layer.weight, std=scale)
    calibrate(net, [scale * torch.randn(2, channels, 8, 8)], net)
    return net


def by_torch(net, state, tmp_path):
    # torch loads the tensors that fit and then raises.
    with pytest.raises(RuntimeError):
        net.load_state_dict(state)


def by_torch_not_strict(net, state, tmp_path):
    fits = {
        k: v
        for k, v in state.items()
        if k not in net.state_dict() or v.shape == net.state_dict()[k].shape
    }
    net.load_state_dict(fits, strict=False)


def by_mmengine(net, state, tmp_path):
    load_state_dict(net, state)


def from_a_file(net, state, tmp_path):
    path = tmp_path / 'file.pth'
    torch.save(dict(state_dict={f'a.{k}': v for k, v in state.items()}), path)
    load_checkpoint(net, str(path), revise_keys=[(r'^a\.', '')])


def from_an_average(net, state, tmp_path):
    """As EMAHook does, whose averaged copy is loaded into the model."""
    average = ExponentialMovingAverage(net)
    load_state_dict(average.module, state)
    net.load_state_dict(average.module.state_dict())


LOADERS = [
    by_torch,
    by_torch_not_strict,
    by_mmengine,
    from_a_file,
    from_an_average,
]


@pytest.mark.parametrize('load', LOADERS)
def test_ranges_of_a_weight_of_another_shape_are_ignored(load, tmp_path):
    net = Net(channels=1)
    load(net, trained().state_dict(), tmp_path)
    assert uncalibrated_layers(net) == ['0']


@pytest.mark.parametrize('load', LOADERS)
def test_ranges_without_their_weight_are_ignored(load, tmp_path):
    state = trained().state_dict()
    del state['2.weight']
    net = Net()
    load(net, state, tmp_path)
    assert uncalibrated_layers(net) == ['2']


@pytest.mark.parametrize('load', LOADERS)
def test_a_layer_that_is_not_loaded_keeps_its_ranges(load, tmp_path):
    state = trained().state_dict()
    del state['2.weight']
    net = trained(scale=3.0)
    kept = copy.deepcopy(net[2].state_dict())
    load(net, state, tmp_path)
    assert uncalibrated_layers(net) == []
    for key, value in net[2].state_dict().items():
        assert torch.equal(value, kept[key])


@pytest.mark.parametrize('load', LOADERS)
def test_a_new_weight_resets_old_ranges(load, tmp_path):
    state = trained().state_dict()
    state = {k: v for k, v in state.items() if not k.startswith('2.weight_q')}
    del state['3.input_quantizer.log_scale'], state['0.bias']
    net = trained(scale=3.0)
    load(net, state, tmp_path)
    assert uncalibrated_layers(net) == ['2', '3']


def test_a_float_file_resets_all_ranges(tmp_path):
    float_keys = {
        k: v
        for k, v in trained().state_dict().items()
        if '_quantizer' not in k
    }
    net = trained(scale=3.0)
    load_state_dict(net, float_keys)
    assert uncalibrated_layers(net) == ['0', '2', '3']


def test_per_layer_scales_are_ignored_if_the_weight_does_not_fit():
    """The quantizer's own tensors fit, whatever the weight's shape."""
    net = Net(channels=1, per_channel=False)
    load_state_dict(net, trained(per_channel=False).state_dict())
    assert uncalibrated_layers(net) == ['0']


def test_ranges_of_other_groups_are_ignored():
    net = Net(groups=2)
    load_state_dict(net, trained().state_dict())
    assert uncalibrated_layers(net) == ['2', '3']


def test_a_pretrained_backbone_with_another_first_layer(tmp_path):
    def backbone(channels, **kwargs):
        return MODELS.build(
            dict(
                type='QuantBackbone',
                backbone='ResNet',
                depth=18,
                base_channels=8,
                stem_channels=8,
                in_channels=channels,
                **kwargs,
            )
        )

    torch.manual_seed(0)
    source = backbone(3)
    calibrate(source, [torch.randn(2, 3, 64, 64)], source)
    path = tmp_path / 'file.pth'
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    init_cfg = dict(
        type='Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    student = backbone(1, init_cfg=init_cfg)
    student.init_weights()
    assert uncalibrated_layers(student) == ['conv1']
