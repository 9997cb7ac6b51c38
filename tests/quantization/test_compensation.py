import copy

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from torch import nn

from mmgor.quantization import (
    QuantPolicy,
    calibrate,
    compensate_weights,
    correct_norms,
)
from mmgor.quantization.compensation import (
    _columns,
    fit_rows,
    mean_squared_errors,
    round_rows,
    trusted_moments,
)
from mmgor.quantization.convert import quantize_layers

ONE = torch.ones(1, dtype=torch.float64)


def test_two_weights_of_the_same_input_share_their_sum():
    """0.4 + 0.4: the first becomes 0, so that the second has to be 0.8."""
    rows = torch.tensor([[0.4, 0.4]], dtype=torch.float64)
    same = torch.ones(2, 2).double() + 1e-6 * torch.eye(2)
    rounded = round_rows(rows, same, ONE, -7, 7)
    assert sorted(rounded.flatten().tolist()) == [0, 1]


def test_independent_inputs_get_the_nearest_integers():
    torch.manual_seed(0)
    rows = torch.randn(3, 5, dtype=torch.float64)
    scale = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64)
    moments = torch.rand(5, dtype=torch.float64).diag()
    wide = scale[:, None]
    torch.testing.assert_close(
        round_rows(rows, moments, scale, -3, 3),
        (rows / wide).round().clamp(-3, 3) * wide,
    )


def one_by_one(row, moments, scale, qmin, qmax):
    """The same from its definition: after each weight, those that are left
    take the least squares solution."""
    diagonal = moments.diagonal()
    order = diagonal.argsort(descending=True).tolist()
    left, rounded = row.clone(), torch.zeros_like(row)
    for i, first in enumerate(order):
        rounded[first] = scale * round(float(left[first] / scale))
        rounded[first].clamp_(qmin * scale, qmax * scale)
        error, rest = left[first] - rounded[first], order[i + 1 :]
        if rest:
            left[rest] += error * torch.linalg.solve(
                moments[rest][:, rest], moments[rest, first]
            )
    return rounded


def test_each_rounding_is_followed_by_a_least_squares_solution():
    torch.manual_seed(0)
    inputs = (
        torch.randn(6, 6, dtype=torch.float64) @ torch.randn(6, 40).double()
    )
    moments = inputs @ inputs.T / 40
    rows = torch.randn(4, 6, dtype=torch.float64)
    scale = torch.rand(4, dtype=torch.float64) + 0.1
    want = [one_by_one(r, moments, s, -3, 3) for r, s in zip(rows, scale)]
    found = round_rows(rows, moments, scale, -3, 3)
    torch.testing.assert_close(found, torch.stack(want))
    groups = round_rows(
        rows[:, None],
        moments.expand(4, 6, 6),
        scale[:, None],
        -3,
        3,
    )
    torch.testing.assert_close(groups[:, 0], found)


def test_a_row_longer_than_a_block():
    torch.manual_seed(0)
    inputs = torch.randn(70, 200, dtype=torch.float64)
    moments = inputs @ inputs.T / 200
    row = torch.randn(70, dtype=torch.float64)
    want = one_by_one(row, moments, ONE[0] / 2, -7, 7)
    found = round_rows(row[None], moments, ONE / 2, -7, 7)
    torch.testing.assert_close(found[0], want)


def test_each_row_gets_the_step_size_with_the_least_error():
    """Only steps of 0.8 give the first row exactly."""
    rows = torch.tensor([[0.8, 2.4], [1.0, -2.0]], dtype=torch.float64)
    scale = torch.ones(2, dtype=torch.float64)
    moments = torch.eye(2, dtype=torch.float64)
    rounded, found, errors = fit_rows(rows, moments, scale, -7, 7)
    torch.testing.assert_close(rounded, rows)
    torch.testing.assert_close(found.tolist(), [0.8, 1.0])
    torch.testing.assert_close(errors, torch.zeros(2).double())


def test_errors_are_those_of_the_outputs():
    torch.manual_seed(0)
    inputs, change = torch.randn(5, 30), torch.randn(3, 5)
    torch.testing.assert_close(
        mean_squared_errors(change, inputs @ inputs.T / 30),
        (change @ inputs).square().mean(1),
    )


def test_few_positions_show_no_correlations():
    """8 inputs at 4 positions: a row gets the nearest integers."""
    torch.manual_seed(0)
    x, rows = torch.randn(8, 4).double(), torch.randn(3, 8).double()
    moments = trusted_moments(x @ x.T, x.sum(1), torch.tensor(4.0), False)
    assert torch.equal(moments, moments.diagonal().diag())
    scale = torch.full((3,), 0.3).double()
    rounded = round_rows(rows, moments, scale, -7, 7)
    torch.testing.assert_close(rounded, (rows / 0.3).round() * 0.3)


def test_half_of_the_correlations_at_twice_as_many_positions():
    torch.manual_seed(0)
    x = torch.randn(8, 16).double() + 3
    moments = trusted_moments(x @ x.T, x.sum(1), torch.tensor(16.0), True)
    want = torch.cov(x, correction=0)
    across = ~torch.eye(8, dtype=torch.bool)
    torch.testing.assert_close(moments[across], want[across] / 2)
    torch.testing.assert_close(
        moments.diagonal(),
        want.diagonal()
        + 1e-2 * want.diagonal().mean()
        + 1e-6 * x.square().mean(),
    )


@pytest.mark.parametrize('count', [1, 3, 500])
@pytest.mark.parametrize('noise', [0, 1e-6, 1])
@pytest.mark.parametrize('mean', [0, 300])
def test_moments_can_always_be_factored(count, noise, mean):
    torch.manual_seed(0)
    x = mean + noise * torch.randn(6, count).double()
    for centered in (True, False):
        moments = trusted_moments(
            x @ x.T, x.sum(1), torch.tensor(float(count)), centered
        )
        torch.linalg.cholesky(moments)


@pytest.mark.parametrize(
    'args',
    [
        dict(kernel_size=3, padding=1),
        dict(kernel_size=3, stride=2, padding=1, groups=4),
        dict(kernel_size=(1, 3), padding='same', dilation=2, groups=2),
        dict(kernel_size=3, padding=1, padding_mode='reflect'),
    ],
)
def test_columns_are_what_a_convolution_multiplies_with(args):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, **args, bias=False).double()
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    columns = _columns(conv, x, torch.Generator().manual_seed(0))
    weight = conv.weight.view(conv.groups, -1, columns.shape[1])
    outputs = (weight @ columns).flatten(0, 1)
    want = conv(x).transpose(0, 1).flatten(1)
    assert outputs.shape == want.shape
    torch.testing.assert_close(outputs.sort(1).values, want.sort(1).values)


class Pair(nn.Module):
    """Correlated inputs, a norm between two layers, and a last one with a
    bias, which runs twice."""

    def __init__(self):
        super().__init__()
        self.first = ConvModule(
            6, 8, 3, padding=1, norm_cfg=dict(type='BN'), act_cfg=None
        )
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.first(x)
        return self.last(y), self.last(y[..., ::2, ::2])


@pytest.fixture
def pair():
    torch.manual_seed(0)
    model = Pair()
    mixed = torch.randn(6, 2) @ torch.randn(2, 6)
    batches = [
        torch.einsum('ij,njhw->nihw', mixed, torch.randn(4, 6, 8, 8)) + 1
        for _ in range(3)
    ]
    for x in batches:  # statistics of these images
        model(x)
    quantize_layers(model, QuantPolicy(w_bits=3, a_bits=8), set())
    return model, batches


def error(model, reference, batches):
    model.eval(), reference.eval()
    with torch.no_grad():
        return sum(
            F.mse_loss(a, b)
            for x in batches
            for a, b in zip(model(x), reference(x))
        )


def test_outputs_come_closer_to_those_in_float(pair):
    model, batches = pair
    reference = copy.deepcopy(model)
    calibrate(reference, batches, reference)
    for layer in (reference.first.conv, reference.last):
        layer.weight_quantizer.quantize = lambda x, slot: x
        layer.input_quantizer.quantize = lambda x, slot: x
    nearest = copy.deepcopy(model)
    with correct_norms(nearest, batches, nearest):
        calibrate(nearest, batches, nearest)
    with correct_norms(model, batches, model):
        calibrate(model, batches, model)
        shares = compensate_weights(model, batches, model)
    assert [*shares] == ['first.conv', 'last']
    assert shares['first.conv'] < 0.3  # its inputs are correlated
    assert shares['last'] <= 1
    assert error(model, reference, batches) < 0.8 * error(
        nearest, reference, batches
    )


def changed_by(model, batches):
    calibrate(model, batches, model)
    compensate_weights(model, batches, model)
    return model.state_dict()


def test_constant_errors_count_unless_a_norm_reads_the_output(pair):
    """A constant added to the inputs changes nothing only if they do not."""
    _, batches = pair
    policy = QuantPolicy(w_bits=3, a_bits=8)
    for with_norm in (True, False):
        weights = []
        for shift in (0, 8):
            torch.manual_seed(0)
            layers = nn.Sequential(
                nn.Conv2d(6, 8, 1, bias=False),
                nn.BatchNorm2d(8) if with_norm else nn.ReLU(inplace=True),
            )
            quantize_layers(layers, policy, set())
            layers[0].input_quantizer.quantize = lambda x, slot: x
            state = changed_by(layers, [x + shift for x in batches])
            weights.append(state['0.weight'])
        assert torch.allclose(*weights, atol=1e-5) == with_norm


def test_a_norm_behind_an_activation_in_place_takes_no_constants(pair):
    _, batches = pair
    weights = []
    for inplace in (True, False):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(6, 8, 1, bias=False),
            nn.ReLU(inplace=inplace),
            nn.BatchNorm2d(8),
        )
        quantize_layers(layers, QuantPolicy(w_bits=3, a_bits=8), set())
        weights.append(changed_by(layers, batches)['0.weight'])
    assert torch.equal(*weights)


def test_one_step_size_for_all_rows_stays(pair):
    _, batches = pair
    layer = nn.Sequential(nn.Conv2d(6, 8, 3))
    policy = QuantPolicy(w_bits=3, a_bits=8, per_channel=False)
    quantize_layers(layer, policy, set())
    calibrate(layer, batches, layer)
    before = copy.deepcopy(layer.state_dict())
    shares = compensate_weights(layer, batches, layer)
    after = layer.state_dict()
    name = '0.weight_quantizer.log_scale'
    assert torch.equal(after[name], before[name])
    assert shares['0'] < 0.8


def test_a_linear_layer_with_correlated_inputs():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 4))
    quantize_layers(layer, QuantPolicy(w_bits=3, a_bits=8), set())
    batches = [torch.randn(300, 3) @ torch.randn(3, 16)] * 2
    calibrate(layer, batches, layer)
    before = layer[0].weight.clone()
    assert compensate_weights(layer, batches, layer)['0'] < 0.5
    assert not torch.equal(layer[0].weight, before)


def test_a_weight_of_two_layers_is_left_alone(pair):
    _, batches = pair
    model = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1))
    model[1].weight = model[0].weight
    quantize_layers(model, QuantPolicy(w_bits=3, a_bits=8), set())
    calibrate(model, batches, model)
    assert compensate_weights(model, batches, model) == {}


def test_a_call_without_images(pair):
    model, batches = pair
    calibrate(model, batches, model)
    shares = compensate_weights(
        model.first, [*batches, batches[0][:0]], model.first.conv
    )
    assert [*shares] == ['conv']


def test_parameters_stay_near_their_float_values(pair):
    model, batches = pair
    calibrate(model, batches, model)
    before = model.first.conv.weight.clone()
    compensate_weights(model, batches, model)
    layer = model.first.conv
    scale = layer.weight_quantizer.step(layer.weight, 0)[0][
        :, None, None, None
    ]
    with torch.no_grad():
        rounded = layer.quantized_weight()
    inside = rounded.abs() < 3 * scale  # of 3 bits
    as_before = torch.isclose(layer.weight, before)
    assert as_before[inside].float().mean() > 0.3
    moved = ((layer.weight - rounded) / scale)[~as_before]
    assert moved.abs().max() <= 0.4 + 1e-5


def test_the_bias_takes_a_constant_error(pair):
    model, batches = pair
    model = model.last
    batches = [torch.rand(4, 8, 2, 2) for _ in batches]
    calibrate(model, batches, model)
    with torch.no_grad():
        x = model.input_quantizer(torch.cat(batches))
        want = model._conv_forward(x, model.weight, model.bias)
        compensate_weights(model, batches, model)
        rounded = model.quantized_weight()
        found = model._conv_forward(x, rounded, model.bias)
    torch.testing.assert_close(found.mean((0, 2, 3)), want.mean((0, 2, 3)))


@pytest.mark.parametrize('kind', ['MinMaxQuantizer', 'DoReFaQuantizer'])
def test_step_sizes_that_follow_from_the_weights_are_left_alone(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    policy = QuantPolicy(w_bits=4, weight_quantizer=dict(type=kind))
    quantize_layers(model, policy, set())
    batches = [torch.rand(1, 3, 4, 4)]
    calibrate(model, batches, model)
    before = model[0].weight.clone()
    assert compensate_weights(model, batches, model) == {}
    assert torch.equal(model[0].weight, before)


def test_a_layer_without_inputs_is_left_alone(pair):
    model, batches = pair
    calibrate(model, batches, model)
    before = model.last.weight.clone()
    assert [*compensate_weights(model, batches, model.first)] == ['first.conv']
    assert torch.equal(model.last.weight, before)
