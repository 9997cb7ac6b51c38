"""Layers that tell a deformable layer where to sample stay in float."""

import pytest
from mmcv.ops import DeformConv2d, ModulatedDeformConv2dPack
from mmdet.registry import MODELS as MMDET
from mmengine.model import BaseModule
from torch import nn

from mmgor.quantization import quantized_layers
from mmgor.quantization.convert import find_layers
from mmgor.registry import MODELS


@MMDET.register_module()
class DeformableNeck(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.where_offset = nn.Conv2d(4, 18, 1)
        self.deform = DeformConv2d(4, 4, 3, padding=1)
        self.pack = ModulatedDeformConv2dPack(4, 4, 3, padding=1)

    def forward(self, x):
        return self.pack(self.deform(x, self.where_offset(x)))


def neck(**overrides):
    return MODELS.build(
        dict(
            type='QuantNeck',
            neck='DeformableNeck',
            quant=dict(overrides=overrides),
        )
    )


def bits_of(module):
    return {
        name: layer.weight_quantizer.bits
        for name, layer in quantized_layers(module).items()
    }


def test_offset_layers_stay_in_float_unless_only_they_match():
    assert bits_of(neck()) == {'deform': 4, 'pack': 4}
    everything = neck(**{'*': dict(w_bits=6)})
    assert bits_of(everything) == {'deform': 6, 'pack': 6}
    meant = neck(**{'*.conv_offset': dict(w_bits=8)})
    assert bits_of(meant) == {'deform': 4, 'pack': 4, 'pack.conv_offset': 8}
    assert bits_of(neck(where_offset=None)) == {'deform': 4, 'pack': 4}


class Centres(nn.Module):
    """Contains a deformable layer; its own offsets are predicted for boxes."""

    def __init__(self):
        super().__init__()
        self.with_deform = True
        self.pack = ModulatedDeformConv2dPack(4, 4, 3, padding=1)
        self.offset_head = nn.Conv2d(4, 2, 1)
        self.attention_weights = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.pack(x) if self.with_deform else x
        return self.offset_head(self.attention_weights(x) * x)


def test_a_module_that_only_contains_a_deformable_layer_does_not_sample():
    found = ['pack', 'offset_head', 'attention_weights']
    assert list(find_layers(Centres())) == found


class Sampler(nn.Module):
    """Samples its input itself; its offset branch has two layers."""

    def __init__(self):
        super().__init__()
        self.offsets = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
        self.value = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        grid = self.offsets(x).permute(0, 2, 3, 1)
        return nn.functional.grid_sample(self.value(x), grid)


def test_own_modules_that_sample_are_recognised_by_their_code():
    module = nn.ModuleDict(dict(a=Sampler(), offset=nn.Conv2d(4, 4, 1)))
    assert list(find_layers(module)) == ['a.value', 'offset']


def test_offsets_that_a_head_predicts_are_quantized():
    """CenterNet predicts the offset of the centre, SABL that of a bucket."""
    head = MODELS.build(
        dict(
            type='CenterNetHead',
            num_classes=3,
            in_channels=4,
            feat_channels=4,
        )
    )
    assert {'offset_head.0', 'offset_head.2'} <= set(find_layers(head))
    head = MODELS.build(
        dict(
            type='SABLHead',
            num_classes=3,
            cls_in_channels=4,
            reg_in_channels=4,
            cls_out_channels=8,
            reg_offset_out_channels=8,
            reg_cls_out_channels=8,
        )
    )
    assert 'fc_reg_offset' in find_layers(head)


@pytest.mark.parametrize(
    'cfg, names',
    [
        (
            dict(
                type='TOODHead',
                num_classes=3,
                in_channels=8,
                feat_channels=8,
                norm_cfg=dict(type='GN', num_groups=1),
                initial_loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            ),
            {'reg_offset_module.0', 'reg_offset_module.2'},
        ),
        (
            dict(
                type='RepPointsHead',
                num_classes=3,
                in_channels=8,
                feat_channels=8,
                point_feat_channels=8,
            ),
            {'reppoints_pts_init_out'},
        ),
        (
            dict(type='DyHead', in_channels=16, out_channels=16, num_blocks=1),
            {'dyhead_blocks.0.spatial_conv_offset'},
        ),
        (
            dict(type='FoveaHead', num_classes=3, in_channels=8,
                 feat_channels=32, with_deform=True, strides=(8, )),
            {'feature_adaption.conv_offset'},
        ),
    ],
)  # fmt: skip
def test_mmdets_own_sampling_layers(cfg, names):
    module = MODELS.build(cfg)
    convs = {k for k, m in module.named_modules() if type(m) is nn.Conv2d}
    assert convs - set(find_layers(module)) == names
