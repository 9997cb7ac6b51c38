from torch import nn

from mmgor.quantization import QuantPolicy, layer_table
from mmgor.quantization.convert import quantize_layers


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
