import pytest
import torch
from torch import nn

from mmgor.deploy.decomposed.graphs import export
from mmgor.deploy.decomposed.nonnegative import nonnegative_nodes
from tests.support.frozen import Rounding

UNSIGNED, SIGNED = Rounding(0.5, 0, 255), Rounding(0.5, -128, 127)


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.unsigned, self.signed = UNSIGNED, SIGNED

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    'expected, function',
    [
        (True, lambda x: x.relu()),
        (True, lambda x: nn.functional.relu6(x)),
        (True, lambda x: x.sigmoid()),
        (True, lambda x: UNSIGNED(x)),
        (True, lambda x: SIGNED(x.relu())),
        (True, lambda x: nn.functional.max_pool2d(x.relu(), 2)),
        (True, lambda x: nn.functional.interpolate(x.relu(), scale_factor=2)),
        (True, lambda x: torch.cat([x.relu(), x.sigmoid()], 1)),
        (True, lambda x: x.relu() + x.sigmoid()),
        (True, lambda x: x.relu()[..., ::2]),
        (False, lambda x: x),
        (False, lambda x: SIGNED(x)),
        (False, lambda x: nn.functional.silu(x)),
        (False, lambda x: torch.cat([x.relu(), x], 1)),
        (False, lambda x: x.relu() - 1),
        (False, lambda x: x.relu() + -1),
        (False, lambda x: x.sigmoid() * x),
        (False, lambda x: x.clamp(-1, 1)),
        (True, lambda x: x.clamp(min=0)),
    ],
)
def test_structure(expected, function):
    module = export(Call(function), torch.randn(1, 2, 4, 4)).module()
    (output,) = [n for n in module.graph.nodes if n.op == 'output']
    (result,) = output.all_input_nodes
    assert (result in nonnegative_nodes(module)) is expected
