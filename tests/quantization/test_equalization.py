"""Channels of very different width survive one grid after equalization."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.functional import silu

from mmgor.quantization import equalize, fit_channels

WIDTHS = torch.tensor([0.02, 0.3, 3.0, 60.0])


def wide_and_narrow(count=512):
    generator = torch.Generator().manual_seed(0)
    return WIDTHS[:, None] * torch.randn(4, count, generator=generator)


def rounded(x, peak):
    return (x * 127 / peak).round().clamp(-127, 127) * peak / 127


def test_each_channel_keeps_its_information_on_the_common_grid():
    x = wide_and_narrow()
    y = silu(x)
    plain = (rounded(y, float(y.max())) - y).square().mean(1) / y.var(1)
    assert plain[0] > 0.9  # the narrowest channel is lost
    fit = fit_channels(x, 1 / y.var(1), silu)
    moved = fit.gain[:, None] * x + fit.shift[:, None]
    result = fit.factor[:, None] * silu(moved) + fit.offset[:, None]
    share = (result - y).square().mean(1) / y.var(1)
    assert (share < 0.01).all()
    peak = float(silu(moved).max())
    assert peak < 40 < float(y.max())
    on_grid = fit.factor[:, None] * rounded(silu(moved), peak)
    on_grid += fit.offset[:, None]
    assert ((on_grid - y).square().mean(1) / y.var(1) < 0.02).all()


def test_a_channel_that_is_constant_keeps_its_values():
    x = torch.stack([torch.zeros(64), torch.linspace(-3, 3, 64)])
    fit = fit_channels(x, torch.ones(2), silu)
    numbers = fit.gain, fit.shift, fit.factor, fit.offset
    assert [float(part[0]) for part in numbers] == [1, 0, 1, 0]
    assert torch.isfinite(fit.error)


class Net(nn.Module):
    """A convolution, and two that read it."""

    def __init__(self):
        super().__init__()
        args = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='Swish'))
        self.stem = ConvModule(3, 4, 1, **args)
        self.depthwise = ConvModule(4, 4, 3, padding=1, groups=4, **args)
        self.dense = ConvModule(4, 6, 1, **args)

    def forward(self, x):
        x = self.stem(x)
        return torch.cat([self.depthwise(x), self.dense(x)], 1)


def net():
    """The stem's channels are as wide as ``WIDTHS``; the weights after it
    make up for it."""
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        model.stem.bn.weight.copy_(WIDTHS)
        spread = silu(wide_and_narrow()).std(1)
        model.depthwise.conv.weight.div_(spread[:, None, None, None])
        model.dense.conv.weight.div_(spread[None, :, None, None])
    return model


def grid_error(model, x, expected):
    """Relative error behind a stem whose output has one grid of 8 bits."""

    def round_output(_, __, output):
        return rounded(output, float(output.max()))

    hook = model.stem.register_forward_hook(round_output)
    error = (model(x) - expected).square().mean() / expected.var()
    hook.remove()
    return float(error)


@torch.no_grad()
def test_a_network_computes_the_same_and_stands_rounding():
    model = net()
    x = torch.randn(4, 3, 24, 24)
    expected = model(x)
    before = grid_error(model, x, expected)
    state = copy.deepcopy(model.stem.bn.running_mean)
    errors = equalize(
        model,
        {'stem': ['depthwise', 'dense']},
        [x, torch.randn(4, 3, 24, 24)],
        lambda batch: model.eval()(batch),
    )
    assert errors.keys() == {'stem'} and 0 < errors['stem'] < 0.02
    assert torch.equal(model.stem.bn.running_mean, state)
    result = model(x)
    inner = (result - expected)[..., 1:-1, 1:-1].square().mean()
    assert inner / expected.var() < 0.01
    assert before > 0.05
    assert grid_error(model, x, expected) < before / 5


@pytest.mark.parametrize(
    'pairs, message',
    [
        ({'trunk': ['dense']}, r"a ConvModule with batch norm, got 'trunk'"),
        ({'stem': []}, 'a list of the layers that read it, got'),
        ({'stem': ['dense', 'stem']}, 'expected stem to read the 4 channels'),
    ],
)
def test_paths_that_do_not_fit_are_refused_by_name(pairs, message):
    with pytest.raises(ValueError, match=message):
        equalize(net(), pairs, [], print)


def test_a_layer_that_no_batch_reaches_is_named():
    with pytest.raises(RuntimeError, match='expected stem to run'):
        equalize(net(), {'stem': ['dense', 'depthwise']}, [], print)
