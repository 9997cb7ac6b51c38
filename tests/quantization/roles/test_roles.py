import copy

import pytest
import torch
from mmengine.hub import get_config
from torch import nn

from mmgor.quantization import quantized_layers
from mmgor.quantization.convert import find_layers
from mmgor.quantization.policy import prediction_layers
from mmgor.quantization.roles.roles import first_layers, head_roles
from mmgor.registry import MODELS
from tests.support.students import STUDENTS, tiny

SMALL = dict(in_channels=8, feat_channels=8)
NO_NORM = dict(norm_cfg=None, **SMALL)


def stock(cfg):
    return MODELS.build(copy.deepcopy(cfg))


def quantized(head, **kwargs):
    """Path -> (bits, input scales) of a head's layers."""
    quant = dict(w_bits=4, a_bits=4)
    module = MODELS.build(
        dict(type='QuantHead', head=head, quant=quant, **kwargs)
    )
    return {
        name: (layer.weight_quantizer.bits, layer.input_quantizer.num_slots)
        for name, layer in quantized_layers(module).items()
    }


def predictions(bits):
    return {name for name, (b, _) in bits.items() if b == 8}


@pytest.mark.parametrize('name', list(STUDENTS))
def test_names_and_probe_agree_for_the_shipped_students(name):
    """The configs in configs/gor use these detectors."""
    model = MODELS.build(tiny(name))
    first = next(iter(find_layers(model.backbone)))
    assert first_layers(model.backbone) == {first}
    heads = [
        getattr(model, 'bbox_head', None),
        getattr(model, 'rpn_head', None),
        getattr(getattr(model, 'roi_head', None), 'bbox_head', None),
    ]
    for head in filter(None, heads):
        names = list(find_layers(head))
        assert head_roles(head, {}).predictions & set(names) == (
            prediction_layers(names)
        )


def roles(name, part='bbox_head', **small):
    """Roles in the head of a stock config, made small."""
    cfg = get_config(f'mmdet::{name}.py').model
    for key in part.split('.'):
        cfg = cfg[int(key) if key.isdigit() else key]
    cfg.update(small)
    config = {k: v for k, v in cfg.items() if k != 'type'}
    return head_roles(stock(cfg), config)


@pytest.mark.parametrize(
    'name, part, small, last',
    [
        (
            'dab_detr/dab-detr_r50_8xb2-50e_coco',
            'bbox_head',
            {},
            {'fc_cls', 'fc_reg.layers.2'},
        ),
        (
            'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
            'bbox_head',
            {},
            {'fc_cls', 'fc_reg'},
        ),
        (
            'detr/detr_r50_8xb2-150e_coco',
            'bbox_head',
            {},
            {'fc_cls', 'fc_reg'},
        ),
        (
            'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance',
            'bbox_head',
            NO_NORM,
            {'conv_cls', 'conv_reg', 'conv_centerness', 'controller'},
        ),
        (
            'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
            'bbox_head',
            SMALL,
            {
                f'rtm_{k}.{i}'
                for k in ('cls', 'reg', 'kernel')
                for i in (0, 1, 2)
            }
            | {'mask_head.projection'},
        ),
        (
            'solo/solo_r50_fpn_1x_coco',
            'mask_head',
            NO_NORM,
            {f'conv_mask_list.{i}' for i in range(5)} | {'conv_cls'},
        ),
        (
            'yolact/yolact_r50_1xb8-55e_coco',
            'bbox_head',
            SMALL,
            {'conv_cls', 'conv_reg', 'conv_coeff'},
        ),
        (
            'yolact/yolact_r50_1xb8-55e_coco',
            'mask_head',
            dict(in_channels=8),
            {'segm_branch.segm_conv', 'protonet.10'},
        ),
        (
            'ssd/ssd300_coco',
            'bbox_head',
            dict(in_channels=(8, 8, 8, 8, 8, 8)),
            {f'{k}_convs.{i}.0' for k in ('cls', 'reg') for i in range(6)},
        ),
        (
            'centernet/centernet_r18_8xb16-crop512-140e_coco',
            'bbox_head',
            SMALL,
            {'heatmap_head.2', 'wh_head.2', 'offset_head.2'},
        ),
        (
            'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco',
            'bbox_head',
            dict(in_channels=8),
            {
                f'{corner}_{kind}.{i}.1.conv'
                for corner in ('tl', 'br')
                for kind in ('heat', 'emb', 'off')
                for i in (0, 1)
            },
        ),
        (
            'reppoints/reppoints-moment_r50_fpn_1x_coco',
            'bbox_head',
            dict(in_channels=8, feat_channels=8, point_feat_channels=8),
            {
                'reppoints_cls_out',
                'reppoints_pts_init_out',
                'reppoints_pts_refine_out',
            },
        ),
        (
            'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco',
            'bbox_head',
            SMALL,
            {'conv_loc', 'conv_shape', 'retina_cls', 'retina_reg'},
        ),
        (
            'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco',
            'rpn_head',
            dict(num_classes=1, train_cfg=None, test_cfg=None),
            {'stages.0.rpn_reg', 'stages.1.rpn_cls', 'stages.1.rpn_reg'},
        ),
        (
            'queryinst/queryinst_r50_fpn_1x_coco',
            'roi_head.bbox_head.0',
            {},
            {'fc_cls', 'fc_reg'},
        ),
        (
            'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
            'roi_head.mask_head',
            dict(in_channels=8, conv_out_channels=8),
            {'conv_logits'},
        ),
        (
            'htc/htc_r50_fpn_1x_coco',
            'roi_head.semantic_head',
            dict(in_channels=8, conv_out_channels=8),
            {'conv_embedding.conv', 'conv_logits'},
        ),
        (
            'ms_rcnn/ms-rcnn_r50_fpn_1x_coco',
            'roi_head.mask_iou_head',
            dict(in_channels=8, conv_out_channels=8, fc_out_channels=8),
            {'fc_mask_iou'},
        ),
        (
            'double_heads/dh-faster-rcnn_r50_fpn_1x_coco',
            'roi_head.bbox_head',
            dict(in_channels=8, conv_out_channels=8, fc_out_channels=8),
            {'fc_cls', 'fc_reg'},
        ),
        (
            'grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco',
            'roi_head.grid_head',
            dict(in_channels=8),
            {'deconv2'},
        ),
        (
            'maskformer/maskformer_r50_ms-16xb1-75e_coco',
            'panoptic_head',
            {},
            {'cls_embed', 'mask_embed.4', 'pixel_decoder.mask_feature'},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_layers_whose_output_a_head_returns_predict(name, part, small, last):
    """The expected layers are read from mmdet's source of each head."""
    assert roles(name, part, **small).predictions == last


@pytest.mark.parametrize(
    'name, part, small, shared',
    [
        (
            'sabl/sabl-retinanet_r50_fpn_1x_coco',
            'bbox_head',
            SMALL,
            {'cls_convs.0.conv', 'retina_cls', 'retina_bbox_reg'},
        ),
        (
            'guided_anchoring/ga-rpn_r50-caffe_fpn_1x_coco',
            'rpn_head',
            SMALL,
            {'rpn_conv', 'conv_loc', 'conv_shape'},
        ),
        (
            'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco',
            'bbox_head',
            SMALL,
            {'cls_convs.0.conv', 'conv_loc', 'conv_shape'},
        ),
        (
            'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco',
            'rpn_head',
            dict(num_classes=1, train_cfg=None, test_cfg=None),
            {'stages.0.rpn_conv.conv', 'stages.0.rpn_reg', 'stages.1.rpn_cls'},
        ),
        (
            'solov2/solov2_r50_fpn_1x_coco',
            'mask_head',
            dict(feat_channels=32),
            {'cls_convs.0.conv', 'conv_cls', 'conv_kernel'},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_shared_head_has_one_scale_per_level(name, part, small, shared):
    calls = roles(name, part, **small).calls
    assert {calls[key] for key in shared} == {5}
    assert set(calls.values()) <= {1, 5}


class Toy(nn.Module):
    """A head whose layers have names that say nothing."""

    def __init__(self, in_channels=4, **own):
        super().__init__()
        self.in_channels = in_channels
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.__dict__.update(own)

    def forward(self, feats):
        return [self.two(self.one(x).relu()) for x in feats]


class NeedsMore(Toy):
    def forward(self, feats, boxes):
        return self.two(self.one(boxes.tensor))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmgor.quantization.roles.roles.print_log',
        lambda text, **_: lines.append(text),
    )
    return lines


@pytest.fixture
def toys():
    for toy in (Toy, NeedsMore):
        MODELS.register_module(module=toy, force=True)
    yield
    for toy in (Toy, NeedsMore):
        MODELS.module_dict.pop(toy.__name__)


def test_a_head_without_declared_levels_shares_its_scales(toys, said):
    assert quantized('Toy', strides=[8, 16, 32]) == dict(
        one=(4, 3), two=(8, 3)
    )
    assert not said
    assert quantized('Toy') == dict(one=(4, 1), two=(8, 1))
    assert 'have one input scale' in said[-1]


def test_a_head_that_can_not_be_run_is_judged_by_names(toys, said):
    with pytest.raises(ValueError, match='no prediction layer found in Needs'):
        quantized('NeedsMore')
    module = NeedsMore()
    module.my_pred = nn.Conv2d(4, 4, 1)
    assert head_roles(module, {}).predictions == {'my_pred'}
    assert 'found by name, and each layer has one input scale' in said[-1]


@pytest.mark.parametrize(
    'cfg, first',
    [
        (dict(type='EfficientNet', arch='b0'), 'layers.0.conv'),
        (
            dict(
                type='SwinTransformer',
                embed_dims=8,
                depths=(2, 2, 2, 2),
                num_heads=(1, 1, 1, 1),
            ),
            'patch_embed.projection',
        ),
        (
            dict(type='PyramidVisionTransformerV2', embed_dims=8),
            'layers.0.0.projection',
        ),
        (dict(type='ResNet', depth=18, in_channels=4), 'conv1'),
        (
            dict(type='ResNet', depth=18, deep_stem=True, with_cp=True),
            'stem.0',
        ),
        (
            dict(
                type='SSDVGG',
                depth=11,
                with_last_pool=False,
                ceil_mode=True,
                out_indices=(3,),
                out_feature_indices=(10,),
            ),
            'features.0',
        ),
    ],
    ids=lambda value: '' if isinstance(value, str) else value['type'],
)
def test_the_first_layer_is_the_one_that_the_image_reaches_first(cfg, first):
    assert first_layers(stock(cfg)) == {first}


class TwoStreams(nn.Module):
    """Reads six channels: an image and a depth map."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)
        self.image, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return self.inner(self.image(x[:, :3]) + self.depth(x[:, 3:]))


class Unquantizable(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)
        self.stem = nn.Conv3d(3, 8, 1)

    def forward(self, x):
        return self.inner(self.stem(x[:, :, None]).squeeze(2))


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, image, depth):
        return self.inner(self.stem(image)) + depth


def test_every_branch_of_the_image_has_a_first_layer():
    assert first_layers(TwoStreams()) == {'image', 'depth'}


def test_no_other_layer_is_first_if_the_first_stays_in_float():
    assert first_layers(Unquantizable()) == {'stem'}


def test_the_order_decides_if_no_image_fits(said):
    assert first_layers(Strange()) == {'stem'}
    assert 'could not be run on zeros' in said[-1]
    assert 'no output comes from' not in said[-1]


def test_a_head_without_layers_needs_no_wrapper():
    with pytest.raises(ValueError, match='Use it without the Quant wrapper'):
        quantized('EmbeddingRPNHead', num_proposals=3)


def test_building_does_not_change_the_random_state():
    cfg = dict(type='RetinaHead', num_classes=2, **SMALL)
    torch.manual_seed(0)
    stock(cfg)
    want = torch.rand(2)
    torch.manual_seed(0)
    quantized('RetinaHead', num_classes=2, **SMALL)
    assert torch.equal(torch.rand(2), want)


def test_roles_are_found_without_gradients_too():
    cfg = dict(num_classes=2, **SMALL)
    want = quantized('RetinaHead', **cfg)
    with torch.inference_mode():
        assert quantized('RetinaHead', **cfg) == want
    with torch.no_grad():
        assert quantized('RetinaHead', **cfg) == want
