import torch
from torch import nn

from mmgor.quantization import QuantPolicy, layer_table
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.tensors.prepare import round_tensors


def test_table_counts_bits_and_bytes_by_hand():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    quantize_layers(module, QuantPolicy(w_bits=2, a_bits=4), set())
    table = layer_table(module)
    (row,) = table['layers']
    assert (row['w_bits'], row['a_bits'], row['params']) == (2, 4, 112)
    # 108 weights at 2 bits, 4 biases, 4 weight scales and 1 input scale.
    assert row['bytes'] == 27 + 4 * 4 + 4 * 5
    assert table['total'] == dict(
        params=120, bytes=63 + 4 * 16, float_bytes=4 * 128
    )


def test_a_shared_scale_counts_once_and_every_tensor_counts():
    """Two layers read one input; both outputs have a scale of their own."""

    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Conv2d(3, 4, 1, bias=False)
            self.right = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, x):
            return self.left(x), self.right(x)

    module, policy = Fork(), QuantPolicy(w_bits=4, tensors='all')
    quantize_layers(module, policy, set())
    round_tensors(module, policy, [dict(x=torch.zeros(1, 3, 4, 4))])
    left, right = layer_table(module)['layers']
    # The input comes rounded: 12 weights at 4 bits and 4 weight scales.
    assert left['input'] == right['input'] == 'as it comes'
    assert left['bytes'] == right['bytes'] == 6 + 4 * 4
    assert layer_table(module)['total']['bytes'] == 2 * 22 + 4 * 2
    module = Fork()
    quantize_layers(module, policy, set())
    inputs = [dict(x=torch.zeros(1, 3, 4, 4))]
    round_tensors(module, policy, inputs, given=False)
    left, right = layer_table(module)['layers']
    assert (left['bytes'], right['bytes']) == (22 + 4, 22)
