import sys

import pytest
import torch
from mmcv.ops import CARAFEPack, DeformConv2dPack, deform_conv2d, roi_align
from torch import nn

from mmgor.deploy.export.compiled_ops import check_calls, check_modules


class Sampling(nn.Module):
    """Calls operators without a module, as the head of TOOD does."""

    def forward(self, x):
        offset = x.new_zeros(1, 18, *x.shape[2:])
        x = deform_conv2d(x, offset, x.new_ones(2, 2, 3, 3), 1, 1)
        return roi_align(x, x.new_tensor([[0.0, 0, 0, 2, 2]]), 2)


def test_called_without_a_module():
    x = torch.ones(1, 2, 4, 4)
    network = nn.ModuleDict(dict(head=nn.Sequential(Sampling())))
    check_modules(network)
    message = r"'roi_align_forward': \['head\.0 \(Sampling\)'\]\}\. Expe"
    with pytest.raises(ValueError, match=message):
        check_calls(network, lambda: network['head'](x))
    assert sys.getprofile() is None
    layer = nn.Conv2d(2, 3, 1)
    assert check_calls(layer, lambda: layer(x)).shape == (1, 3, 4, 4)


def test_modules():
    layers = nn.ModuleDict(
        dict(a=DeformConv2dPack(8, 8, 3), b=CARAFEPack(8, 2))
    )
    with pytest.raises(ValueError, match=r"\{'b': 'CARAFEPack'\}\. Exp"):
        check_modules(layers)
