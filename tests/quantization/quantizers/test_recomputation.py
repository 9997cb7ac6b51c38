"""Activation checkpointing gives the gradients of a plain step."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmgor.quantization import calibrate, quantized_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS
from tests.support.models import make_batch, quantized_cfg

KINDS = ['LSQQuantizer', 'LSQPlusQuantizer', 'PACTQuantizer']
KINDS += ['DoReFaQuantizer', 'MinMaxQuantizer']


def shared_layers(kind, calls):
    """Two layers with a ReLU between them, called once per level."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    policy = QuantPolicy(input_quantizer=dict(type=kind))
    slots = {'0': calls, '2': calls}
    quantize_layers(module, policy, set(), slots)
    return module


def levels(calls):
    """Feature maps of one size; the values of each are ten times as large as
    those of the one before it."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(calls, 2, 2, 5, 5, generator=generator)
    return [(10**i * x).requires_grad_() for i, x in enumerate(maps)]


def step(module, maps, call):
    """Gradients and state after one backward pass for all levels."""
    module.zero_grad()
    for x in maps:
        x.grad = None
    out = [call(module, x).square().mean() for x in maps]
    sum(out).backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    state = {k: v.clone() for k, v in module.state_dict().items()}
    return gradients + [x.grad for x in maps], state


def same(a, b):
    torch.testing.assert_close(a[0], b[0], rtol=1e-5, atol=1e-9)
    assert all(torch.equal(a[1][key], b[1][key]) for key in a[1])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.parametrize('calls', [1, 3])
def test_a_checkpointed_step_equals_a_plain_one(kind, reentrant, calls):
    plain, maps = shared_layers(kind, calls), levels(calls)
    calibrate(plain, [maps], lambda xs: [plain(x) for x in xs])
    other = copy.deepcopy(plain)
    for _ in range(2):
        want = step(plain, maps, lambda module, x: module(x))
        got = step(
            other,
            maps,
            lambda module, x: checkpoint(module, x, use_reentrant=reentrant),
        )
        same(got, want)


@pytest.mark.parametrize('kind', ['LSQQuantizer', 'MinMaxQuantizer'])
@pytest.mark.parametrize('reentrant', [True, False])
def test_several_forward_passes_before_one_backward_pass(kind, reentrant):
    """A distillation loss may need them; MinMax's average moves in between."""
    plain, (x,) = shared_layers(kind, 1), levels(1)
    calibrate(plain, [x / 2], plain)
    other = copy.deepcopy(plain)
    want = step(plain, [x, x, x], lambda module, x: module(x))
    got = step(
        other,
        [x, x, x],
        lambda module, x: checkpoint(module, x, use_reentrant=reentrant),
    )
    same(got, want)


def test_a_second_backward_pass_recomputes_again():
    plain, maps = shared_layers('MinMaxQuantizer', 2), levels(2)
    calibrate(plain, [maps], lambda xs: [plain(x) for x in xs])
    other = copy.deepcopy(plain)
    outs = [plain(x).sum() for x in maps]
    want = [torch.autograd.grad(out, plain[0].weight)[0] for out in outs]
    outs = [checkpoint(other, x, use_reentrant=False).sum() for x in maps]
    for _ in range(2):
        got = [
            torch.autograd.grad(out, other[0].weight, retain_graph=True)[0]
            for out in outs
        ]
        torch.testing.assert_close(got, want)


def test_only_the_first_run_reduces_over_ranks(monkeypatch):
    """A collective call in the backward pass could wait for ever."""
    module, (x,) = shared_layers('MinMaxQuantizer', 1), levels(1)
    calibrate(module, [x], module)
    met = []
    monkeypatch.setattr('mmengine.dist.is_distributed', lambda: True)
    monkeypatch.setattr('mmengine.dist.all_reduce', lambda *a: met.append(a))
    out = checkpoint(module, x, use_reentrant=True).sum()
    assert len(met) == 2
    out.backward()
    assert len(met) == 2


def test_a_second_run_without_a_first_raises():
    module, maps = shared_layers('LSQQuantizer', 2), levels(2)
    calibrate(module, [maps], lambda xs: [module(x) for x in xs])
    module.eval()  # without gradients, this is taken for inference
    out = checkpoint(module, maps[0], use_reentrant=True).sum()
    with pytest.raises(RuntimeError, match=r'model\.train\(\) before'):
        out.backward()


def test_nothing_is_kept_without_checkpointing():
    module, maps = shared_layers('MinMaxQuantizer', 2), levels(2)
    calibrate(module, [maps], lambda xs: [module(x) for x in xs])
    step(module, maps, lambda module, x: module(x))
    with torch.no_grad():
        module.eval()(maps[0])
    for layer in quantized_layers(module).values():
        assert not layer.input_quantizer._slots._calls
        assert not layer.input_quantizer._steps._calls


@pytest.mark.parametrize('kind', ['LSQQuantizer', 'MinMaxQuantizer'])
@pytest.mark.parametrize(
    'names, reentrant',
    [
        (['bbox_head'], False),
        (['bbox_head.cls_convs.0', 'bbox_head.retina_reg'], False),
        (['bbox_head.cls_convs.0', 'bbox_head.retina_reg'], True),
    ],
)
def test_a_detector_with_a_checkpointed_head(kind, names, reentrant):
    """Its two coarsest levels have the same shape: one pixel each."""
    cfg = quantized_cfg(w_bits=4, a_bits=4, input_quantizer=dict(type=kind))
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    batch = make_batch()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    other = copy.deepcopy(model)
    for name in names:  # as mmengine's activation_checkpointing does
        module = other.get_submodule(name)
        module.forward = partial(
            checkpoint, module.forward, use_reentrant=reentrant
        )
    got, want = (gradients(m, batch) for m in (other, model))
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=name)
    ranges = [b for name, b in model.named_buffers() if '_quantizer.' in name]
    others = [b for name, b in other.named_buffers() if '_quantizer.' in name]
    assert all(torch.equal(a, b) for a, b in zip(ranges, others))


def gradients(model, batch):
    model.train()
    losses = model.loss(batch['inputs'], copy.deepcopy(batch['data_samples']))
    model.parse_losses(losses)[0].backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
