"""Integer arithmetic by hand, and layer by layer against fake quantization."""

import pytest
import torch
from conftest import make_batch, quantized_cfg
from torch import nn

from mmgor.deploy import integer
from mmgor.deploy.integer_layers import fit_bias, fold_layer, integer_layer
from mmgor.deploy.integer_scaling import (
    quantize_multiplier,
    requantize,
    rescale,
)
from mmgor.quantization import Grid, calibrate, quantized_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def grid(scale, zero_point=0, qmin=-128, qmax=127):
    scale = torch.tensor(scale)
    zero_point = torch.tensor(zero_point, dtype=torch.int32)
    return Grid(scale, zero_point.expand(scale.shape), qmin, qmax, axis=1)


@pytest.mark.parametrize(
    'real, multiplier, shift',
    [
        (1.0, 2**30, 30),
        (0.75, 3 * 2**29, 31),
        (5.0, 5 * 2**28, 28),
        (2.0**31 - 1, 2**31 - 1, 0),
        (2.0**31 - 0.75, 2**31 - 1, 0),
        (1 - 2.0**-40, 2**30, 30),  # rounds up to 1
        (2.0**-40, 2**22, 62),
        (1e-300, 0, 62),
    ],
)
def test_multiplier_by_hand(real, multiplier, shift):
    got = quantize_multiplier(real)
    assert [int(v) for v in got] == [multiplier, shift]


def test_multiplier_has_31_bits():
    real = torch.logspace(-9, 9, 500, dtype=torch.float64)
    multiplier, shift = quantize_multiplier(real)
    assert (multiplier >= 2**30).all()
    error = multiplier.double() / 2.0 ** shift.double() / real - 1
    assert error.abs().max() <= 2.0**-31


@pytest.mark.parametrize(
    'real', [0.0, -1.0, 2.0**31 - 0.25, 2.0**31, float('nan')]
)
def test_factors_outside_are_refused(real):
    with pytest.raises(ValueError, match=r'below 2\*\*31 - 0\.5, got'):
        quantize_multiplier(torch.tensor([1.0, real]))


def test_halves_go_to_even():
    values = ints(-7, -5, -3, -1, 1, 3, 5, 7)
    got = rescale(values, *quantize_multiplier(0.5))
    assert got.tolist() == [-4, -2, -2, 0, 0, 2, 2, 4]
    # One of 2**31 steps beside a half.
    one_more = torch.tensor(2**30 + 1)
    assert rescale(ints(1), one_more, torch.tensor(31)).tolist() == [1]


def test_rescale_at_the_ends_of_int32():
    values = ints(-(2**31), 2**31 - 1)
    largest = torch.tensor(2**31 - 1), torch.tensor(0)
    expected = [int(v) * (2**31 - 1) for v in values]
    assert rescale(values, *largest).tolist() == expected
    tiny = quantize_multiplier(2.0**-33)
    assert rescale(values, *tiny).tolist() == [0, 0]


def test_requantize_by_hand():
    accumulator = ints(-100, -3, 0, 5, 7, 1000)
    # times 0.5: -50, -1.5, 0, 2.5, 3.5, 500
    got = requantize(accumulator, *quantize_multiplier(0.5), 10, 0, 15)
    assert got.dtype == torch.int32
    assert got.tolist() == [0, 8, 10, 12, 14, 15]


def test_convolution_pads_with_the_zero_point():
    x = ints(1, 2, 3, 4).view(1, 1, 2, 2)
    weight = torch.ones(1, 1, 3, 3, dtype=torch.int32)
    # The zero point 7 is outside of the integers 0 .. 4.
    got = integer.conv2d(x, weight, ints(100), torch.tensor(7), padding=1)
    # (1 + 2 + 3 + 4) - 4 * 7 + 100; the border adds nothing.
    assert got.flatten().tolist() == [82, 82, 82, 82]
    assert got.dtype == torch.int32


def test_convolution_groups_stride_dilation():
    x = torch.arange(50, dtype=torch.int32).view(1, 2, 5, 5)
    weight = ints(1, 0, 0, -2, 3, 0, 0, 1).view(2, 1, 2, 2)
    got = integer.conv2d(
        x,
        weight,
        ints(0, 5),
        ints(0, 1),
        stride=2,
        dilation=2,
        groups=2,
    )
    # Taps at (r, c) and (r + 2, c + 2), r and c in {0, 2}, rows of 5.
    first = [x[0, 0, r, c] - 2 * x[0, 0, r + 2, c + 2] for r in (0, 2)
             for c in (0, 2)]  # fmt: skip
    second = [3 * (x[0, 1, r, c] - 1) + x[0, 1, r + 2, c + 2] - 1 + 5
              for r in (0, 2) for c in (0, 2)]  # fmt: skip
    assert got[0, 0].flatten().tolist() == [int(v) for v in first]
    assert got[0, 1].flatten().tolist() == [int(v) for v in second]


def test_transposed_convolution_by_hand():
    x = ints(3, 5).view(1, 1, 1, 2)
    weight = ints(1, 2, 3, 4).view(1, 1, 2, 2)
    got = integer.conv_transpose2d(
        x, weight, ints(10), torch.tensor(1), stride=2
    )
    # (3 - 1) and (5 - 1) times the kernel, side by side, and the bias.
    assert got[0, 0].tolist() == [[12, 14, 14, 18], [16, 18, 22, 26]]
    cropped = integer.conv_transpose2d(
        x,
        weight,
        ints(10),
        torch.tensor(1),
        stride=2,
        padding=(0, 1),
        output_padding=(1, 0),
    )
    assert cropped[0, 0].tolist() == [[14, 14], [18, 22], [10, 10]]


def test_linear_by_hand():
    x = ints(1, 2, 3, 4).view(1, 2, 2)
    weight = ints(1, -1, 10, 2).view(2, 2)
    got = integer.linear(x, weight, ints(0, 7), torch.tensor(1))
    # Rows (0, 1) and (2, 3) after the zero point.
    assert got.tolist() == [[[-1, 9], [-1, 33]]]


@pytest.mark.parametrize('extra', [0, 1])
def test_overflow_is_found_at_the_last_integer(extra):
    """2**14 * 2**14 * 8 is 2**31, one more than int32 holds."""
    x = torch.full((1, 8, 1, 1), 2**14, dtype=torch.int32)
    weight = torch.full((1, 8, 1, 1), 2**14, dtype=torch.int32)
    weight[0, 0] -= 1  # 2**31 - 2**14
    bias = ints(2**14 - 1 + extra)
    zero = torch.tensor(0)

    def results():
        flat = weight.flatten(1)
        yield integer.conv2d(x, weight, bias, zero)
        yield integer.conv_transpose2d(x, weight.transpose(0, 1), bias, zero)
        yield integer.linear(x.flatten(1), flat, bias, zero)

    if not extra:
        assert [int(r) for r in results()] == [2**31 - 1] * 3
        return
    for _ in range(3):
        with pytest.raises(OverflowError, match='could reach 2147483648'):
            next(results())


def test_overflow_of_a_partial_sum_is_found():
    """The sum is 0, but an adder might meet the positive terms first."""
    x = torch.full((1, 4), 2**15, dtype=torch.int32)
    weight = ints(2**15, 2**15, -(2**15), -(2**15)).view(1, 4)
    with pytest.raises(OverflowError, match='expected at most 2147483647'):
        integer.linear(x, weight, ints(0), torch.tensor(0))


def test_addition_by_hand():
    a, b = ints(1, -4, 100), ints(2, 3, 130)
    got = integer.add(
        a.view(1, 3),
        b.view(1, 3),
        grid(0.5),
        grid(0.3, zero_point=5, qmin=0, qmax=255),
        grid(0.25, zero_point=-2),
    )
    # 0.5 - 0.9, -2 - 0.6, 50 + 37.5; over 0.25: -1.6, -10.4, 350
    assert got.tolist() == [[-4, -12, 127]]


def test_addition_that_cannot_fit_is_refused():
    far = grid(1.0, zero_point=-40000, qmin=0, qmax=255)
    with pytest.raises(OverflowError, match='int32'):
        integer.add(ints(0), ints(0), far, far, far)


def test_pooling_by_hand():
    x = ints(1, -2, 3, 4, -5, 6, 7, 8, -9).view(1, 1, 3, 3)
    pooled = integer.max_pool2d(x, 2, 2, padding=1)
    assert pooled[0, 0].tolist() == [[1, 3], [7, 8]]
    negative = integer.max_pool2d(ints(-3).view(1, 1, 1, 1), 3, 1, padding=1)
    assert negative.item() == -3
    source, target = grid(0.5, zero_point=1), grid(0.25, zero_point=3)
    mean = integer.avg_pool2d(x, source, target, (3, 3), 1)
    # 0.5 * (13 - 9) / 9 = 0.2222; over 0.25: 0.889
    assert mean.tolist() == [[[[1 + 3]]]]
    padded = integer.avg_pool2d(x, source, target, (2, 2), 2, padding=1)
    # Windows of 1; -2 and 3; 4 and 7; -5, 6, 8 and -9, each less 1.
    sums = torch.tensor([[0.0, -1], [9, -4]]) * 0.5 / 4 / 0.25
    assert (padded[0, 0] - 3).tolist() == sums.round().int().tolist()


def test_clip_by_hand():
    x = ints(0, 3, 4, 9, 15)
    signed = grid(0.5, zero_point=4, qmin=0, qmax=15)
    assert integer.clip(x, signed, low=0).tolist() == [4, 4, 4, 9, 15]
    six = integer.clip(x, grid(1.0, 1, 0, 15), low=0, high=6)
    assert six.tolist() == [1, 3, 4, 7, 7]
    # All values of the grid are negative; zero is above it.
    below = grid(1.0, zero_point=20, qmin=0, qmax=15)
    assert integer.clip(x, below, low=0).tolist() == [15] * 5
    channels = grid([1.0, 1.0], zero_point=0, qmin=-3, qmax=3)
    pair = ints(-2, 2).view(1, 2, 1, 1)
    assert integer.clip(pair, channels, low=0).flatten().tolist() == [0, 2]


def test_a_bias_beyond_int32_makes_coarser_steps():
    weight = ints(100, 100, 100, -7).view(4, 1)
    scale = torch.tensor([1.0, 2.0**-10, 0.0, 0.0], dtype=torch.float64)
    bias = torch.tensor([2.0**29, 2.0**21, -4.0, 0.0], dtype=torch.float64)
    fitted, steps = fit_bias(weight, scale, bias)
    # 2**30 steps for the bias: half the weight where there were 2**31.
    assert fitted.flatten().tolist() == [100, 50, 0, 0]
    assert steps.tolist() == [1, 2.0**-9, 2.0**-28, 1]


def test_a_layer_by_hand():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0)).eval()
    quantize_layers(module, QuantPolicy(w_bits=4, a_bits=4), set())
    layer, norm = module
    layer.weight.data = torch.tensor([0.75, -1.75]).view(2, 1, 1, 1)
    layer.bias.data = torch.tensor([0.3, 1.0])
    for quantizer, scale in (
        (layer.weight_quantizer, torch.tensor([0.25, 0.25])),
        (layer.input_quantizer, torch.tensor([0.5])),
    ):
        quantizer.choose_range(signed=quantizer.for_weight)
        quantizer.set_ranges(scale, 0 * scale, None, None)
    norm.weight.data = torch.tensor([1.0, -2.0])
    norm.bias.data = torch.tensor([0.0, 0.5])
    norm.running_mean.data = torch.tensor([0.0, 3.0])
    norm.running_var.data = torch.tensor([1.0, 16.0])
    folded = fold_layer(layer, norm=norm)
    # Factors 1 and -2 / 4; the second bias is -(1 - 3) / 2 + 0.5.
    assert folded.weight.flatten().tolist() == [3, 7]
    assert folded.fraction_bits.tolist() == [16, 16]
    steps = [0.125 / 2**16, 0.0625 / 2**16]
    assert folded.scale.tolist() == pytest.approx(steps)
    assert folded.bias.tolist() == [157286, 24 * 2**16]
    x = torch.tensor([1.0, 1.3, 99.0]).view(1, 1, 1, 3)  # 2, 3, 15
    got = integer_layer(layer, x, grid(0.1, qmin=-8, qmax=30), norm=norm)
    # 0.3 + 0.375 q, and 1.5 + 0.4375 q.
    assert got.flatten().tolist() == [10, 14, 30, 24, 28, 30]


def symmetric(values, bits=8):
    """Signed grid of a float tensor, one scale."""
    peak = float(values.abs().max()) or 1.0
    highest = 2 ** (bits - 1) - 1
    return grid(peak / highest, qmin=-highest, qmax=highest)


def unsigned(values, bits=8):
    highest = 2**bits - 1
    peak = float(values.max()) or 1.0
    return grid(peak / highest, qmin=0, qmax=highest)


def assert_one_step(got, out_grid, expected):
    """``expected``: float values. Returns the share that is one step off."""
    difference = (got - out_grid.quantize(expected)).abs()
    assert got.shape == expected.shape
    assert int(difference.max()) <= 1
    return float((difference > 0).float().mean())


def shake_batch_norm(module):
    """Factors of either sign, among them 0 and almost 0."""
    generator = torch.Generator().manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            size = norm.weight.shape
            norm.weight.data.uniform_(0.3, 1.5, generator=generator)
            norm.weight.data[::3] *= -1
            norm.weight.data[1], norm.weight.data[2] = 0, 1e-9
            norm.bias.data.copy_(torch.randn(size, generator=generator))
            norm.momentum = 1.0  # the next batch's statistics


class Recorder:
    """Float inputs and outputs of modules, one pair a call."""

    def __init__(self, modules):
        self.calls = {name: [] for name in modules}
        for name, module in modules.items():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name):
        def keep(_, inputs, output):
            self.calls[name].append((inputs[0].clone(), output.clone()))

        return keep


def following_norm(model, name):
    """The batch norm that the model runs after a convolution, or None."""
    parent = model.get_submodule(name.rpartition('.')[0])
    own = name.rpartition('.')[2]
    named = dict(conv1='bn1', conv2='bn2', conv='bn')
    if isinstance(parent, nn.Sequential):
        following = int(own) + 1
        norm = parent[following] if following < len(parent) else None
    else:
        norm = getattr(parent, named.get(own, ''), None)
    return norm if isinstance(norm, nn.BatchNorm2d) else None


@torch.no_grad()
def recorded(model, inputs, run=None, extra=()):
    """Calibrate, then one pass in evaluation mode with every layer kept."""
    run = run or model
    shake_batch_norm(model)
    calibrate(model, [inputs], run)
    model.train()
    run(inputs)
    model.eval()
    modules = {
        **quantized_layers(model),
        **{name: model.get_submodule(name) for name in extra},
    }
    recorder = Recorder(modules)
    run(inputs)
    return recorder.calls


@torch.no_grad()
def check_layers(model, calls):
    """Every call of every layer, to a signed and (after ReLU) an unsigned
    grid of 8 bits. How many had a batch norm, how many more than one slot,
    and the mean share of integers that are one step off."""
    norms, slots, shares = 0, 0, []
    for name, layer in quantized_layers(model).items():
        norm = following_norm(model, name)
        count = layer.input_quantizer.num_slots
        for call, (x, y) in enumerate(calls[name]):
            slot = call % count
            y = y if norm is None else norm(y)
            target = symmetric(y)
            got = integer_layer(layer, x, target, slot, norm)
            shares.append(assert_one_step(got, target, y))
            target = unsigned(y.relu())
            got = integer_layer(layer, x, target, slot, norm, relu=True)
            shares.append(assert_one_step(got, target, y.relu()))
        norms += norm is not None
        slots += count > 1
    return norms, slots, sum(shares) / len(shares)


@pytest.fixture(scope='module', params=[2, 4, 8], ids=['W2A2', 'W4A4', 'W8A8'])
def retinanet(request):
    torch.manual_seed(0)
    bits = request.param
    model = MODELS.build(quantized_cfg(w_bits=bits, a_bits=bits))
    inputs = make_batch()['inputs']
    extra = ['backbone.maxpool', 'backbone.layer1.0', 'backbone.layer2.0']
    calls = recorded(model, inputs, lambda x: model(x, mode='tensor'), extra)
    return model, calls


def test_every_layer_of_a_retinanet(retinanet):
    model, calls = retinanet
    norms, slots, share = check_layers(model, calls)
    # conv1, 16 of basic blocks, 3 of shortcuts; the head's 4 on 5 levels.
    assert (norms, slots) == (20, 4)
    # To round down, or a bias of whole steps, would show in many.
    assert share < 0.001


@torch.no_grad()
def test_layers_meet_on_the_next_input_grid(retinanet):
    model, calls = retinanet
    for path in ('layer1.1', 'layer3.0', 'layer4.1'):
        block = model.backbone.get_submodule(path)
        x, y = calls[f'backbone.{path}.conv1'][0]
        y = block.bn1(y).relu()
        target = block.conv2.input_quantizer.grid(y)
        got = integer_layer(block.conv1, x, target, norm=block.bn1, relu=True)
        assert_one_step(got, target, y)


@torch.no_grad()
def test_residual_sums_and_pooling(retinanet):
    """From the stem's pooling through the first block and the shortcut."""
    model, calls = retinanet
    backbone = model.backbone
    x, pooled = calls['backbone.maxpool'][0]
    source = unsigned(x)
    got = integer.max_pool2d(source.quantize(x), 3, 2, 1)
    assert torch.equal(got, source.quantize(pooled))
    for path, shortcut in (('layer1.0', None), ('layer2.0', 'downsample')):
        block = backbone.get_submodule(path)
        identity, out = calls[f'backbone.{path}'][0]
        if shortcut:
            conv, norm = block.downsample
            identity_grid = symmetric(norm(conv(identity)))
            identity = integer_layer(conv, identity, identity_grid, norm=norm)
        else:
            identity_grid = unsigned(identity)
            identity = identity_grid.quantize(identity)
        x, y = calls[f'backbone.{path}.conv2'][0]
        branch_grid = symmetric(block.bn2(y))
        branch = integer_layer(block.conv2, x, branch_grid, norm=block.bn2)
        target = unsigned(out)
        total = integer.add(
            branch, identity, branch_grid, identity_grid, target
        )
        # Exact sum of the two sets of integers, in float.
        exact = branch_grid.dequantize(branch)
        exact = exact + identity_grid.dequantize(identity)
        assert_one_step(
            integer.clip(total, target, low=0), target, exact.relu()
        )


@torch.no_grad()
def test_average_pooling_of_a_feature_map(retinanet):
    _, calls = retinanet
    x = calls['backbone.layer2.0'][0][1]
    source, target = unsigned(x), unsigned(x.mean((2, 3)))
    integers = source.quantize(x)
    height, width = x.shape[2:]
    got = integer.avg_pool2d(integers, source, target, (height, width), 1)
    exact = source.dequantize(integers).mean((2, 3), keepdim=True)
    assert_one_step(got, target, exact)


def test_depthwise_with_offsets_and_a_scale_a_channel():
    """A darknet with SiLU: inputs have zero points, depthwise ones a scale
    a channel."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='QuantBackbone',
            backbone='CSPDarknet',
            arch_ovewrite=[
                [64, 128, 1, True, False],
                [128, 256, 1, True, True],
            ],
            out_indices=(1, 2),
            widen_factor=0.125,
            use_depthwise=True,
            quant=dict(
                w_bits=6,
                a_bits=6,
                input_quantizer=dict(type='LSQPlusQuantizer'),
                per_channel_depthwise=True,
            ),
        )
    )
    calls = recorded(model, torch.randn(1, 3, 64, 64))
    layers = quantized_layers(model)
    assert check_layers(model, calls)[0] == len(layers)
    grids = [
        fold_layer(layer).input_grid
        for layer in layers.values()
        if layer.groups > 1
    ]
    assert len(grids) == 4
    assert all(g.scale.shape == g.zero_point.shape != () for g in grids)
    assert any((g.zero_point > g.qmin).any() for g in grids)


def test_pointwise_to_the_scales_of_a_depthwise_input():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
    )
    policy = QuantPolicy(
        w_bits=8,
        a_bits=4,
        input_quantizer=dict(type='LSQPlusQuantizer'),
        per_channel_depthwise=True,
    )
    quantize_layers(module, policy, set())
    calls = recorded(module, torch.randn(2, 3, 9, 9) + 1)
    depthwise = module[2].input_quantizer
    # Zero outside of the range: every value of a channel is positive.
    depthwise.offset.data[3] = 5 * depthwise.log_scale.exp()[3]
    target = depthwise.grid(calls['2'][0][0])
    assert target.scale.shape == (8,) and target.zero_point[3] == -5
    x, y = calls['0'][0]
    got = integer_layer(module[0], x, target, norm=module[1])
    with torch.no_grad():
        y = module[1](y)
        assert_one_step(got, target, y)
        out = module[2](y)
    target = symmetric(out)
    assert_one_step(integer_layer(module[2], y, target), target, out)


@pytest.mark.parametrize(
    'layer, shape',
    [
        (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (2, 4, 7, 5)),
        (nn.Conv2d(4, 6, 3, padding='same', dilation=2), (2, 4, 7, 5)),
        (nn.Linear(12, 5), (2, 7, 12)),
    ],
)
def test_other_kinds_of_layers(layer, shape):
    torch.manual_seed(0)
    module = nn.Sequential(layer)
    quantize_layers(module, QuantPolicy(w_bits=5, a_bits=7), set())
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    calls = recorded(module, torch.randn(shape))
    assert check_layers(module, calls)[:2] == (0, 0)


def test_what_cannot_be_folded_is_refused():
    module = nn.Sequential(nn.Conv2d(3, 4, 1))
    quantize_layers(module, QuantPolicy(), set())
    calibrate(module, [torch.randn(1, 3, 4, 4)], module)
    with pytest.raises(ValueError, match=r'folded.*got GroupNorm'):
        fold_layer(module[0], norm=nn.GroupNorm(2, 4))
    with pytest.raises(ValueError, match=r'call model\.eval\(\) first'):
        fold_layer(module[0], norm=nn.BatchNorm2d(4))
    x, target = torch.zeros(1, 3, 4, 4), grid(1.0)
    module[0].padding_mode = 'reflect'
    with pytest.raises(ValueError, match="padding_mode='zeros', got 'refl"):
        integer_layer(module[0], x, target)
