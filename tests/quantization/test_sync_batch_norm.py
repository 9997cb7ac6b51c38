"""Batch norm over all ranks (SyncBN) in quantized networks."""

import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import nn

from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.device_steps import with_ranges
from tests.support.models import make_batch, quantized_cfg


def built(**norm):
    torch.manual_seed(0)
    cfg = quantized_cfg()
    cfg.backbone.norm_cfg.update(norm)
    return with_ranges(MODELS.build(cfg))


def norms(model, kind):
    return [n for n, m in model.named_modules() if isinstance(m, kind)]


def outputs(model):
    model.eval()
    with torch.no_grad():
        classes, boxes = model(**make_batch(), mode='tensor')
    return [*classes, *boxes]


def test_it_is_kept_and_evaluates_as_batch_norm():
    """From a config, and as ``sync_bn='torch'`` makes it before DDP wraps the
    model. It trains on GPUs only."""
    plain = built()
    layers, names = quantized_layers(plain), norms(plain, nn.BatchNorm2d)
    assert len(names) == 20
    want = outputs(plain)
    state = plain.state_dict()
    configured = built(type='SyncBN')
    configured.load_state_dict(state)
    for model in (configured, convert_sync_batchnorm(plain, 'torch')):
        assert norms(model, nn.SyncBatchNorm) == names
        assert quantized_layers(model).keys() == layers.keys()
        assert model.state_dict().keys() == state.keys()
        for got in (outputs(model), outputs(revert_sync_batchnorm(model))):
            for a, b in zip(got, want):
                assert torch.equal(a, b)
