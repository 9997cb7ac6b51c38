"""Grids, and a comparison of integer layers with fake quantization."""

import torch
from torch import nn

from mmgor.deploy.integer_reference.layers import integer_layer
from mmgor.quantization import Grid, calibrate, quantized_layers


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def grid(scale, zero_point=0, qmin=-128, qmax=127):
    scale = torch.tensor(scale)
    zero_point = torch.tensor(zero_point, dtype=torch.int32)
    return Grid(scale, zero_point.expand(scale.shape), qmin, qmax, axis=1)


def symmetric(values, bits=8):
    """A symmetric grid with one scale for a float tensor."""
    peak = float(values.abs().max()) or 1.0
    highest = 2 ** (bits - 1) - 1
    return grid(peak / highest, qmin=-highest, qmax=highest)


def unsigned(values, bits=8):
    highest = 2**bits - 1
    peak = float(values.max()) or 1.0
    return grid(peak / highest, qmin=0, qmax=highest)


def assert_one_step(got, out_grid, expected):
    """Integers differ by at most one step from the float values; returns the
    share that differs."""
    difference = (got - out_grid.quantize(expected)).abs()
    assert got.shape == expected.shape
    assert int(difference.max()) <= 1
    return float((difference > 0).float().mean())


def shake_batch_norm(module):
    """Batch norms with positive and negative factors, with 0 and almost 0."""
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
    """Records the float input and output of each call of the modules."""

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
    """Calibrate, then record all layers in one pass in evaluation mode."""
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
    """Check every call of every layer, with a signed and (after ReLU) an
    unsigned output grid of 8 bits.

    Returns the number of layers with a batch norm, the number with more than
    one slot, and the mean share of integers that are one step off.
    """
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
