"""Backbones of MMPretrain and timm in a low-bit student."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmgor.quantization import (
    calibrate,
    counting_macs,
    layer_table,
    quantized_layers,
)
from mmgor.quantization.coverage import NO_LAYER, float_shares
from mmgor.registry import MODELS
from tests.support.backbones import BACKBONES, SIZE, float_model, student, vary
from tests.support.models import make_batch

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


@pytest.fixture(scope='module', params=BACKBONES)
def pair(request):
    """The float detector and the calibrated student with its weights, and
    what both give while the student is calibrated, which is in float."""
    torch.manual_seed(0)
    stock = MODELS.build(float_model(request.param))
    vary(stock)
    model = MODELS.build(student(request.param, w_bits=4, a_bits=4).model)
    found = model.load_state_dict(stock.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all('_quantizer.' in key for key in found.missing_keys)
    images, seen = torch.randn(2, 3, *SIZE), []
    stock.train()
    with torch.no_grad():
        seen.append(stock(images))
    with counting_macs(model) as macs:
        calibrate(model, [images], lambda x: seen.append(model(x)))
    return stock, model, seen, macs


def leaves(outputs):
    return [x for level in outputs for x in level]


def test_it_computes_what_the_float_network_does(pair):
    """While it is calibrated, nothing is rounded."""
    want, got = map(leaves, pair[2])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_every_layer_is_quantized(pair):
    _, model, _, macs = pair
    layers = quantized_layers(model.backbone)
    stock = [
        name
        for name, layer in model.backbone.named_modules()
        if isinstance(layer, LAYERS) and name not in layers
    ]
    assert stock == []
    (first,) = [name for name, layer in layers.items() if layer.is_edge]
    assert first == next(iter(layers))
    causes = {share.cause for share in float_shares(model, macs)}
    assert causes <= {NO_LAYER}
    assert all(macs[f'backbone.{name}'] > 0 for name in layers)
    rows = {row['name']: row for row in layer_table(model)['layers']}
    assert {rows[f'backbone.{name}']['w_bits'] for name in layers} == {4, 8}


def test_a_step(pair):
    _, model, *_ = pair
    model.train()
    batch = model.data_preprocessor(make_batch(), True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    gradients = {k: p.grad for k, p in model.named_parameters()}
    model.zero_grad()
    assert all(
        g is not None and g.isfinite().all() for g in gradients.values()
    )
    idle = [k for k, g in gradients.items() if not g.any()]
    assert [k for k in idle if k.endswith('log_scale')] == []


def test_copies_give_the_same(pair):
    _, model, *_ = pair
    model.eval()
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        want = model.backbone(images)
        for other in (
            copy.deepcopy(model.backbone),
            pickle.loads(pickle.dumps(model.backbone)),
        ):
            for a, b in zip(other(images), want, strict=True):
                assert torch.equal(a, b)
