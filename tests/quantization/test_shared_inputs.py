import math

import pytest
import torch
from torch import nn

from mmgor.quantization import (
    LSQPlusQuantizer,
    LSQQuantizer,
    calibrate,
    input_groups,
    share_ranges,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy


class Branches(nn.Module):
    """``one`` and ``two`` read the same tensor, ``three`` and ``four`` do
    not."""

    def __init__(self):
        super().__init__()
        for name in ('one', 'two', 'three', 'four'):
            self.add_module(name, nn.Conv2d(3, 3, 1))

    def forward(self, x):
        y = self.one(x) + self.two(x)
        return self.three(y) + self.four(y.clone())


def calibrated(**quant):
    torch.manual_seed(0)
    model = Branches()
    quantize_layers(model, QuantPolicy(**quant), set())
    x = torch.randn(2, 3, 8, 8)
    calibrate(model, [x], model)
    return model, x


def names(model, x):
    return input_groups(model, lambda: model(x))


def test_layers_that_read_the_same_tensor_are_a_group():
    model, x = calibrated()
    assert names(model, x) == [['one', 'two']]
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_the_model_is_not_changed():
    model, x = calibrated(input_quantizer=dict(type='MinMaxQuantizer'))
    model.norm = nn.BatchNorm2d(3)
    model.train()
    model.four.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    groups = input_groups(model, lambda: model.norm(model(x)))
    assert groups == [['one', 'two']]
    assert model.training and model.norm.training and not model.four.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_deleted_tensor_is_not_mistaken_for_another():
    """Python may give the id of a deleted tensor to a new one."""
    model, x = calibrated()

    def run():
        for layer in (model.one, model.two, model.three, model.four):
            layer(x + 1)

    assert input_groups(model, run) == []


def test_frozen_layers_are_in_no_group():
    model, x = calibrated()
    model.two.requires_grad_(False)
    assert names(model, x) == []


def test_all_calls_of_a_layer_must_agree():
    """A head calls its layers once per level."""
    model, x = calibrated()

    def run(levels=(x, x + 1)):
        for level in levels:
            model(level)

    assert input_groups(model, run) == [['one', 'two']]

    def once_more():
        run()
        model.two(x)

    assert input_groups(model, once_more) == []


def test_a_tensor_that_was_changed_in_place_is_another():
    model, x = calibrated()

    def run():
        y = x.clone()
        model.one(y)
        y.relu_()
        model.two(y)

    assert input_groups(model, run) == []


@pytest.mark.parametrize(
    'override', [dict(a_bits=8), None], ids=['bits', 'float']
)
def test_layers_that_can_not_share(override):
    model, x = calibrated(overrides={'two': override})
    assert names(model, x) == []


@pytest.mark.parametrize(
    'one, two',
    [
        (LSQQuantizer(4), LSQPlusQuantizer(4)),
        (LSQQuantizer(4), LSQQuantizer(4, num_scales=2)),
        (
            LSQQuantizer(4, num_scales=3),
            LSQQuantizer(4, num_scales=3, channels=3),
        ),
    ],
    ids=['kind', 'slots', 'channels'],
)
def test_kinds_and_sizes_that_can_not_share(one, two):
    model, x = calibrated()
    for layer, quantizer in ((model.one, one), (model.two, two)):
        quantizer.choose_range(signed=False)
        layer.input_quantizer = quantizer
    assert names(model, x) == []


def test_mean_of_steps_is_geometric():
    model, x = calibrated()
    (group,) = input_groups(model, lambda: model(x))
    one, two = (model.get_submodule(n).input_quantizer for n in group)
    one.log_scale.data.fill_(torch.tensor(0.02).log())
    two.log_scale.data.fill_(torch.tensor(0.08).log())
    before = model.three.input_quantizer.log_scale.clone()
    share_ranges([[one, two]])
    for quantizer in (one, two):
        assert quantizer.log_scale.exp().item() == pytest.approx(0.04)
        assert int(quantizer.qmax) == 7
    assert torch.equal(model.three.input_quantizer.log_scale, before)


def test_mean_of_averaged_ranges():
    model, x = calibrated(input_quantizer=dict(type='MinMaxQuantizer'))
    (group,) = input_groups(model.eval(), lambda: model(x))
    one, two = (model.get_submodule(n).input_quantizer for n in group)
    one.low.fill_(-1), two.low.fill_(-3)
    one.high.fill_(2), two.high.fill_(6)
    share_ranges([[one, two]])
    assert [q.low.item() for q in (one, two)] == [-2, -2]
    assert [q.high.item() for q in (one, two)] == [4, 4]


def test_groups_of_several_sizes_are_shared_at_once():
    steps = [[0.02, 0.08], [0.01, 0.02, 0.04], [0.3, 0.3]]
    groups = [[LSQQuantizer(4) for _ in group] for group in steps]
    for group, values in zip(groups, steps):
        for quantizer, value in zip(group, values):
            quantizer.log_scale.data.fill_(math.log(value))
    share_ranges(groups)
    got = [[q.log_scale.exp().item() for q in group] for group in groups]
    want = [[0.04] * 2, [0.02] * 3, [0.3] * 2]
    for values, mean in zip(got, want):
        assert values == pytest.approx(mean)
