"""experiments/last_batch.py: the last step's images come again, and their
scores of then are the target."""

import sys
from importlib import import_module

import pytest
import torch

from mmgor.dense_heads.scores import score_logits
from mmgor.registry import MODELS
from tests.support.models import make_batch, retinanet_cfg


@pytest.fixture
def kind():
    """Registered for these tests alone."""
    module = import_module('experiments.last_batch')
    yield module.LastBatchRetinaNet
    del sys.modules[module.__name__]
    del MODELS.module_dict['LastBatchRetinaNet']


def halves():
    batch = make_batch(4)
    inputs, samples = batch['inputs'], batch['data_samples']
    return (inputs[:2], samples[:2]), (inputs[2:], samples[2:]), batch


def scores(model, inputs):
    """As the head gives them, shape (N, L, K)."""
    with torch.no_grad():
        outputs = model(inputs, mode='tensor')
    maps = score_logits(model.bbox_head, outputs)
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)


def test_the_last_step_is_the_teacher(kind):
    torch.manual_seed(0)
    model = kind(kd_weight=5, **without_type(retinanet_cfg())).eval()
    first, second, both = halves()
    alone = model.loss(*first)
    assert 'loss_kd_last' not in alone
    stock = model.stock_loss(*first)
    torch.testing.assert_close(alone, stock, rtol=0, atol=0)
    # An optimizer's step lies between the two.
    before = scores(model, first[0])
    with torch.no_grad():
        model.bbox_head.retina_cls.weight += 0.1
    losses = model.loss(*second)
    kd = losses.pop('loss_kd_last')
    torch.testing.assert_close(losses, model.stock_loss(**both))
    p, q = before.sigmoid(), scores(model, first[0]).sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    weights = p.amax(-1)
    expected = 5 * (kl.sum(-1) * weights).sum() / weights.sum()
    assert expected > 1e-3
    torch.testing.assert_close(kd, expected, rtol=1e-3, atol=0)
    # Of the third step, the second is the last.
    kd = model.loss(*first)['loss_kd_last']
    torch.testing.assert_close(kd, torch.zeros(()), rtol=0, atol=1e-6)
    assert kd.requires_grad


def test_nothing_of_it_is_saved(kind):
    model = kind(kd_weight=1, **without_type(retinanet_cfg()))
    model.loss(*halves()[0])
    stock = MODELS.build(retinanet_cfg())
    assert list(model.state_dict()) == list(stock.state_dict())


def without_type(cfg):
    cfg.pop('type')
    return cfg
