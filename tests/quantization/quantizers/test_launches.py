"""How many kernels one call of a quantizer launches, forward and backward."""

import pytest
import torch

from mmgor.registry import MODELS
from tests.support.launches import launches
from tests.support.quantizers import ready

WEIGHT = dict(num_scales=8, per_channel=True, for_weight=True)
# Quantizer, its arguments, and at most how many launches per direction.
CASES = {
    'LSQ weight': ('LSQQuantizer', WEIGHT, (2, 2)),
    'LSQ input': ('LSQQuantizer', dict(num_scales=5), (2, 3)),
    'LSQ depthwise': ('LSQQuantizer', dict(num_scales=8, channels=8), (3, 4)),
    'LSQ+ input': ('LSQPlusQuantizer', dict(num_scales=5), (2, 4)),
    'PACT input': ('PACTQuantizer', dict(num_scales=5), (1, 3)),
    'DoReFa weight': ('DoReFaQuantizer', WEIGHT, (1, 1)),
    'DoReFa input': ('DoReFaQuantizer', dict(num_scales=5), (1, 1)),
    'MinMax weight': ('MinMaxQuantizer', WEIGHT, (3, 1)),
    'MinMax input': ('MinMaxQuantizer', dict(num_scales=5), (4, 1)),
}


@pytest.mark.parametrize('name', list(CASES))
def test_launches_of_a_call(name):
    kind, arguments, limits = CASES[name]
    signed = 'for_weight' in arguments
    quantizer = ready(MODELS.get(kind), signed=signed, **arguments).train()
    x = torch.randn(8, 8, 3, 3, requires_grad=True)
    with launches() as counter:
        out = quantizer(x)
        forward = counter.take()
        gradient = torch.ones_like(out)
        counter.take()
        out.backward(gradient)
        backward = counter.take()
    assert sum(forward.values()) <= limits[0], forward
    assert sum(backward.values()) <= limits[1], backward


@pytest.mark.parametrize('per_channel', [False, True])
def test_a_learned_step_needs_two_small_operations(per_channel):
    """s = exp(t), and the factor 1 / sqrt(N Q) of its gradient."""
    scales = WEIGHT if per_channel else dict(num_scales=1)
    quantizer = ready(MODELS.get('LSQQuantizer'), signed=True, **scales)
    x = torch.randn(8, 4, 3, 3, requires_grad=True)
    with launches() as counter:
        y = quantizer.train()(x)
        y.backward(torch.ones_like(y))
    assert list(counter.take().items()) == [
        ('exp', 1),
        ('compiled fake_quantize', 1),
        ('ones_like', 1),
        ('compiled fake_quantize_backward', 1),
        ('mul', 1),
    ]


def test_what_counts_as_a_launch():
    x = torch.ones(2, 3)
    with launches() as counter:
        y = torch.empty_like(x.t().contiguous().view(6))
        torch.add(x.view(6), 1, out=y)
    assert counter.take() == {'clone': 1, 'add': 1}


def test_every_quantizer_is_counted():
    known = {n for n in MODELS.module_dict if n.endswith('Quantizer')}
    assert known == {kind for kind, _, _ in CASES.values()}
