import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack, SAConv2d
from mmdet.models.backbones.trident_resnet import TridentConv
from torch import nn
from torch.nn.utils import parametrizations

from mmgor.quantization import counting_macs, layer_table, weighted_layers

IMAGE = (2, 4, 9, 11)
# Two images of 9 x 11 pixels, 6 filters of 4 x 3 x 3.
CONV = 2 * 99 * 6 * 36


@pytest.mark.parametrize(
    'layer, x, macs',
    [
        (nn.Conv2d(4, 6, 3, padding=1), torch.zeros(IMAGE), CONV),
        (nn.ConvTranspose2d(4, 6, 3, 2), torch.zeros(IMAGE), CONV),
        # two dilations
        (SAConv2d(4, 6, 3, padding=1), torch.zeros(IMAGE), 2 * CONV),
        # three dilations
        (TridentConv(4, 6, 3), torch.zeros(3, *IMAGE), 3 * CONV),
        (
            ModulatedDeformConv2dPack(4, 6, 3, padding=1),
            torch.zeros(IMAGE),
            CONV,
        ),
    ],
)
def test_calls_are_counted_by_hand(layer, x, macs):
    if isinstance(layer, TridentConv):
        nn.init.zeros_(layer.weight)
    with counting_macs(layer) as counted:
        layer(x)
    assert counted[''] == macs
    layer(x)
    assert counted[''] == macs


def test_attention_counts_four_projections():
    attention = nn.MultiheadAttention(8, 2)
    x = torch.zeros(5, 2, 8)
    with counting_macs(attention) as macs:
        attention(query=x, key=x, value=x)
    assert macs == {'': 10 * 4 * 8 * 8, 'out_proj': 0}


def test_every_layer_with_weights_has_a_row():
    model = nn.ModuleDict(
        dict(
            deform=ModulatedDeformConv2dPack(4, 6, 3),
            attention=nn.MultiheadAttention(8, 2),
            norm=nn.BatchNorm2d(4),
            words=nn.Embedding(3, 4),
            reparametrized=parametrizations.weight_norm(nn.Linear(4, 6)),
        )
    )
    rows = {row['name']: row for row in layer_table(model)['layers']}
    assert list(rows) == list(weighted_layers(model))
    sizes = {name: row['params'] for name, row in rows.items()}
    assert sizes == {
        'deform': 6 * 36 + 6,
        'deform.conv_offset': 27 * 36 + 27,
        'attention': 3 * 64 + 24,
        'attention.out_proj': 64 + 8,
        # one length and one direction per row, and the bias
        'reparametrized': 6 + 24 + 6,
    }
    total = layer_table(model)['total']
    assert total['params'] == sum(sizes.values()) + 8 + 12
