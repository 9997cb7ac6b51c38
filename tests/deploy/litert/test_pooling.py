import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmgor.deploy.decomposed.graphs import export
from mmgor.deploy.litert.pooling import pad_with_zeros


class Pooling(nn.Module):
    def __init__(self, positive, **options):
        super().__init__()
        self.positive, self.options = positive, options

    def forward(self, x):
        return F.max_pool2d(x.relu() if self.positive else x, **self.options)


@pytest.mark.parametrize(
    'pads, positive, options',
    [
        (True, True, dict(kernel_size=3, stride=2, padding=1)),
        (True, True, dict(kernel_size=(3, 5), stride=3, padding=(1, 2))),
        (False, False, dict(kernel_size=3, stride=2, padding=1)),
        (False, True, dict(kernel_size=5, stride=1, padding=2)),
        (False, True, dict(kernel_size=2)),
        (
            False,
            True,
            dict(kernel_size=3, stride=2, padding=1, ceil_mode=True),
        ),
    ],
)
def test_values_stay_the_same(pads, positive, options):
    images = torch.randn(1, 2, 9, 12) - 1
    module = export(Pooling(positive, **options), images).module()
    wanted = module(images)
    pad_with_zeros(module)
    padding = torch.ops.aten.constant_pad_nd.default
    assert any(n.target == padding for n in module.graph.nodes) is pads
    assert torch.equal(module(images), wanted)
