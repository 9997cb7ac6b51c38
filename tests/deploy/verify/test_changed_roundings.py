"""Small changes of what is rounded."""

import pytest
import torch
from torch import nn

from mmgor.deploy.verify.changed_roundings import (
    changed_roundings,
    input_quantizers,
)
from mmgor.quantization import (
    GivenQuantizer,
    quantized_layers,
    tensor_quantizers,
)
from mmgor.quantization.quantizers.marks import mark
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg


class Floor(nn.Module):
    """Rounds down; returns what is on its grid as it is."""

    def forward(self, x, slot=None):
        return x.floor()


def test_values_below_a_step_reach_it_in_the_block():
    rounding = Floor()
    x = torch.tensor([1.5, 2 - 1e-3, 3.0])
    with changed_roundings([rounding, rounding], 1e-3):
        assert rounding(x, 2).tolist() == [1, 2, 3]
    assert rounding(x).tolist() == [1, 1, 3]


@pytest.mark.parametrize('tensors', ['inputs', 'all'])
def test_what_rounds_activations(tensors):
    """Every layer's input, and with 'all' the sums of the residual blocks;
    no weights."""
    quant = dict(w_bits=8, a_bits=8, tensors=tensors)
    model = MODELS.build(quantized_cfg(**quant))
    found = input_quantizers(model)
    layers = quantized_layers(model).values()
    assert not {id(layer.weight_quantizer) for layer in layers} & set(
        map(id, found)
    )
    assert not any(isinstance(q, GivenQuantizer) for q in found)
    if tensors == 'inputs':
        assert found == [layer.input_quantizer for layer in layers]
    else:
        assert set(tensor_quantizers(model).values()) <= set(found)
        assert tensor_quantizers(model)


def test_a_rounded_tensor_keeps_its_mark():
    rounding = nn.Identity()
    x = mark(torch.ones(2), rounding, 0)
    with changed_roundings([rounding], 0.5):
        assert rounding(x) is x
