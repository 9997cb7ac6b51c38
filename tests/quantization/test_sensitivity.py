"""What few bits cost, compared with second derivatives known by hand."""

import pytest
import torch
from torch import nn

from mmgor.quantization import QuantPolicy, quantized_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.quantizers import functional
from mmgor.quantization.quantizers.observer import best_row_scales
from mmgor.quantization.sensitivity import BITS, sensitivities

BATCH = 4


class Twice(nn.Module):
    """A layer that runs twice, on two inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3)
        quantize_layers(self, QuantPolicy(), set(), {'layer': 2})

    def forward(self, x):
        return self.layer(x).sum(1) + 2 * self.layer(x + 1).sum(1)


def measured(model, batches, loss):
    return {
        (one.layer, one.side): one
        for one in sensitivities(model, batches, loss, BATCH)
    }


def batches(count=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(BATCH, 6, generator=generator) for _ in range(count)]


def test_costs_are_half_the_squared_gradient_times_the_squared_error():
    model, data = Twice(), batches()
    found = measured(model, data, lambda x: model(x).mean())
    weight = model.layer.weight.detach()
    # d loss / d w_ij = mean over images of x_j + 2 (x_j + 1).
    gradient = [(3 * x + 2).mean(0).expand(3, 6) for x in data]
    square = sum(g**2 for g in gradient) * BATCH / len(data)
    one = found['layer', 'w_bits']
    assert one.count == 18
    for bits in BITS:
        qmin, qmax = functional.integer_range(bits, True, narrow=True)
        scale = best_row_scales(weight, qmin, qmax)[:, None]
        error = (weight / scale).round().clamp(qmin, qmax) * scale - weight
        expected = 0.5 * (square * error**2).sum()
        assert one.costs[bits] == pytest.approx(float(expected), rel=1e-4)


def test_inputs_count_per_image_and_fall_with_bits():
    model, data = Twice(), batches()
    one = measured(model, data, lambda x: model(x).mean())['layer', 'a_bits']
    assert one.count == 12  # two calls of six values
    costs = [one.costs[bits] for bits in BITS]
    assert costs == sorted(costs, reverse=True) and costs[-1] > 0


def test_what_the_loss_ignores_costs_nothing():
    model = Twice()
    found = measured(model, batches(), lambda x: 0 * model(x).mean())
    assert {c for one in found.values() for c in one.costs.values()} == {0.0}


def test_a_loss_that_is_not_finite_is_refused():
    model = Twice()
    with pytest.raises(ValueError, match='the weight of layer is not finite'):
        measured(model, batches(), lambda x: model(x).mean() * float('nan'))


def test_integers_of_the_target_are_counted_with():
    # ncnn's inputs have the integers 0 to 127 with 7 and with 8 bits.
    model = Twice()
    model.layer.input_quantizer.symmetric = True
    costs = measured(model, batches(), lambda x: model(x).mean())[
        'layer', 'a_bits'
    ].costs
    assert costs[8] == costs[7] < costs[6]


def test_the_model_is_left_as_it_was():
    model = Twice()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measured(model, batches(), lambda x: model(x).mean())
    assert all(
        torch.equal(v, before[k]) for k, v in model.state_dict().items()
    )
    for layer in quantized_layers(model).values():
        assert layer.weight_quantizer.observer is None
        assert layer.input_quantizer.observer is None
        assert layer.weight.grad is None


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match='0 batches and 1 quantized layers'):
        sensitivities(Twice(), [], lambda x: x, BATCH)
    with pytest.raises(ValueError, match='0 quantized layers'):
        sensitivities(nn.Linear(2, 2), batches(), lambda x: x, BATCH)
