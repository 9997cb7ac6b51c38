"""Models to pack, and a check that a packed model is the same."""

import torch
from torch import nn

from mmgor.quantization import calibrate, quantized_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.registry import MODELS
from tests.support.models import make_batch


def student(cfg):
    """A calibrated student with batch norms that are not the identity."""
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    inputs = make_batch()['inputs']
    calibrate(model, [inputs], lambda x: model(x, mode='tensor'))
    model.train()
    model(inputs, mode='tensor')
    return model.eval()


def small(policy):
    """A calibrated network with one layer of each kind."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 4, 2, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 7 * 7, 5),
    )
    quantize_layers(module, policy, set())
    calibrate(module, [torch.randn(2, 4, 8, 8)], module)
    return module.eval()


def is_weight(model, name):
    layer = model.get_submodule(name.rpartition('.')[0])
    return name.endswith('.weight') and hasattr(layer, 'weight_quantizer')


def assert_same_student(one, two):
    """All tensors are the same, except for quantized weights, which only
    quantize to the same integers."""
    state = two.state_dict()
    for name, value in one.state_dict().items():
        if not is_weight(one, name):
            assert torch.equal(value, state[name]), name
            assert value.dtype == state[name].dtype
    others = quantized_layers(two)
    for name, layer in quantized_layers(one).items():
        integers, grid = layer.weight_integers()
        got, got_grid = others[name].weight_integers()
        assert torch.equal(integers, got), name
        assert torch.equal(grid.scale, got_grid.scale), name
        assert torch.equal(layer.quantized_weight(),
                           others[name].quantized_weight())  # fmt: skip
