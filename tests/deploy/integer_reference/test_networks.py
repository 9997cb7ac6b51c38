"""Every layer of whole networks on integers, against fake quantization."""

import pytest
import torch

from mmgor.deploy.integer_reference import operators as integer
from mmgor.deploy.integer_reference.layers import fold_layer, integer_layer
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.integers import (
    assert_one_step,
    check_layers,
    recorded,
    symmetric,
    unsigned,
)
from tests.support.models import make_batch, quantized_cfg


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
    # Rounding down, or a bias of whole steps, would change many more.
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


def test_depthwise_with_offsets_and_a_scale_per_channel():
    """In a darknet with SiLU, inputs have zero points, and those of depthwise
    layers have one scale per channel."""
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
