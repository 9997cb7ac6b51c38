"""Activations that a runtime computes inside the layer before."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmgor.quantization import fused_silus
from mmgor.quantization.tensors.fusion import fused_steps
from mmgor.quantization.tensors.operations import Kind
from mmgor.quantization.tensors.tape import Step, Tape

from .toys import Gated, batch, quantized

CONV = Step(None, 'conv', [0], [1])


def silu(x, gate, result):
    return [
        Step(Kind.SIGMOID, '', [x], [gate]),
        Step(Kind.PRODUCT, '', [gate, x], [result]),
    ]


def test_silu_of_a_layer_is_fused():
    whole = Step(Kind.SILU, '', [1], [2])
    assert fused_steps(Tape([CONV, whole], [0], [2])) == [whole]
    parts = silu(1, 2, 3)
    assert fused_steps(Tape([CONV, *parts], [0], [3])) == parts
    normed = Tape([CONV, *silu(2, 3, 4)], [0], [4], passed=[(1, 2)])
    assert len(fused_steps(normed)) == 2


@pytest.mark.parametrize(
    'tape',
    [
        Tape([CONV, *silu(1, 2, 3)], [0], [1, 3]),  # returned, too
        Tape([CONV, *silu(1, 2, 3)], [0], [2, 3]),
        Tape([CONV, *silu(1, 2, 3), Step(None, 'b', [1], [4])], [0], [3]),
        Tape([CONV, *silu(1, 2, 3), Step(None, 'b', [2], [4])], [0], [3]),
        Tape([CONV, *silu(1, 2, 3)], [0], [3], same=[(1, 4)]),
        Tape([*silu(0, 1, 2)], [0], [2]),  # no layer before
        Tape([*silu(1, 2, 3)], [0], [3], same=[(0, 1)]),
        Tape([CONV, *silu(4, 2, 3)], [0], [3]),  # 4: a function in float
        Tape([CONV, Step(Kind.ACTIVATION, '', [1], [2])], [0], [2]),
        Tape([CONV, Step(Kind.SILU, '', [1], [2], decodes=True)], [0], [2]),
        Tape([CONV, Step(Kind.SUM, '', [0, 1], [2]), *silu(2, 3, 4)], [0]),
        # A gate: the sigmoid of another tensor.
        Tape(
            [
                CONV,
                Step(Kind.SIGMOID, '', [1], [2]),
                Step(Kind.PRODUCT, '', [0, 2], [3]),
            ],
            [0],
            [3],
        ),
    ],
)
def test_an_activation_is_not_fused_if_something_else_reads(tape):
    assert fused_steps(tape) == []


@pytest.mark.parametrize('whole', [True, False])
def test_what_a_fused_silu_reads_is_not_rounded(whole):
    symmetric = dict(target='tensorrt', a_bits=8)
    net, x = quantized(Gated(whole), **symmetric), batch()
    assert [*net.tensor_quantizer] == ['output_0']
    layer, last = net.conv0, net.conv1
    before = F.conv2d(
        layer.input_quantizer(x), layer.quantized_weight(), layer.bias
    )
    read = last.input_quantizer(before * torch.sigmoid(before))
    wanted = F.conv2d(read, last.quantized_weight(), last.bias)
    wanted = net.tensor_quantizer['output_0'](wanted)
    torch.testing.assert_close(net(x), wanted)
    assert fused_silus(nn.Sequential(net)) == ['0']
