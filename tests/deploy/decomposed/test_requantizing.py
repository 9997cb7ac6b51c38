import pytest
import torch

from mmgor.deploy.decomposed.program import Weights, lower
from tests.support.rounded import TwoGrids

DECOMPOSED = torch.ops.quantized_decomposed


@pytest.mark.parametrize('weights', Weights)
@torch.no_grad()
def test_two_roundings_in_a_row_have_a_sum_between(weights):
    torch.manual_seed(0)
    network, images = TwoGrids(4, False).eval(), torch.randn(1, 3, 16, 16)
    network(images)  # takes the ranges
    wanted = network(images)
    program, _ = lower(network, images, weights)
    sums = 0
    for node in program.graph.nodes:
        if node.target != DECOMPOSED.quantize_per_tensor.default:
            continue
        source = node.args[0]
        sums += source.target == torch.ops.aten.add.Tensor
        if source.target == DECOMPOSED.dequantize_per_tensor.default:
            assert source.args[1:] == node.args[1:]
    assert sums == 1
    for got, expected in zip(program.module()(images), wanted, strict=True):
        torch.testing.assert_close(got, expected)
