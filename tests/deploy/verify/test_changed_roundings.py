"""Small changes of what is rounded."""

import torch
from torch import nn

from mmgor.deploy.verify.changed_roundings import changed_roundings
from mmgor.quantization.quantizers.marks import mark


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


def test_a_rounded_tensor_keeps_its_mark():
    rounding = nn.Identity()
    x = mark(torch.ones(2), rounding, 0)
    with changed_roundings([rounding], 0.5):
        assert rounding(x) is x
