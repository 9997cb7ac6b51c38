"""Stock detectors of every family take a step as W4A4 students."""

import copy

import pytest
import torch
from conftest import make_batch
from mmengine.hub import get_config
from torch import nn

from mmgor.quantization import calibrate
from mmgor.registry import MODELS

FPN = dict(in_channels=[8, 16, 32, 64], out_channels=16)
R18 = dict(
    depth=18,
    base_channels=8,
    stem_channels=8,
    init_cfg=None,
    style='pytorch',
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=False,
    frozen_stages=-1,
)
GROUPS = dict(type='GN', num_groups=4, requires_grad=True)


def dense(**head):
    """A dense detector on an FPN."""
    head = dict(in_channels=16, feat_channels=16, stacked_convs=1, **head)
    return dict(backbone=R18, neck=FPN, bbox_head=head), [16] * 5, True


# Stock config; what makes it tiny; channels of the neck's maps; logit KD.
STUDENTS = {
    'retinanet/retinanet_r18_fpn_1x_coco': dense(),
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': dense(norm_cfg=None),
    'atss/atss_r50_fpn_1x_coco': dense(norm_cfg=GROUPS),
    'gfl/gfl_r50_fpn_1x_coco': dense(norm_cfg=GROUPS),
    'yolof/yolof_r50-c5_8xb8-1x_coco': (
        dict(
            backbone=R18,
            neck=dict(in_channels=64, out_channels=16, block_mid_channels=8),
            bbox_head=dict(in_channels=16),
        ),
        [16],
        True,
    ),
    'yolox/yolox_nano_8xb8-300e_coco': (
        dict(
            backbone=dict(widen_factor=0.125),
            neck=dict(in_channels=[32, 64, 128], out_channels=16),
            bbox_head=dict(in_channels=16, feat_channels=16),
        ),
        [16] * 3,
        True,
    ),
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco': (
        dict(
            backbone=dict(init_cfg=None),
            neck=dict(out_channels=[16, 16, 16]),
            bbox_head=dict(in_channels=[16] * 3, out_channels=[16] * 3),
        ),
        [16] * 3,
        False,
    ),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': (
        dict(
            backbone=dict(widen_factor=0.125, init_cfg=None),
            neck=dict(in_channels=[32, 64, 128], out_channels=16),
            bbox_head=dict(in_channels=16, feat_channels=16),
        ),
        [16] * 3,
        True,
    ),
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': (
        dict(
            backbone=R18,
            neck=FPN,
            rpn_head=dict(in_channels=16, feat_channels=16),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=16),
                bbox_head=dict(in_channels=16, fc_out_channels=16),
            ),
        ),
        [16] * 5,
        False,
    ),
}


def strides(name, levels):
    """Of the neck's maps."""
    first = {'yolof': 32, 'faster_rcnn': 4}.get(name.split('/')[0], 8)
    return [first * 2**i for i in range(levels)]


def tiny(name):
    cfg = get_config(f'mmdet::{name}.py')
    cfg.merge_from_dict(dict(model=copy.deepcopy(STUDENTS[name][0])))
    # No multi-scale batches: the pictures stay as they are.
    cfg.model.data_preprocessor.pop('batch_augments', None)
    return cfg.model


def quantized(cfg):
    cfg = copy.deepcopy(cfg)
    parts = [
        (cfg, 'backbone', 'QuantBackbone', 'backbone'),
        (cfg, 'neck', 'QuantNeck', 'neck'),
        (cfg, 'bbox_head', 'QuantHead', 'head'),
        (cfg, 'rpn_head', 'QuantHead', 'head'),
        (cfg.get('roi_head') or {}, 'bbox_head', 'QuantHead', 'head'),
    ]
    for parent, key, wrapper, argument in parts:
        if key in parent:
            part = parent[key]
            part[argument] = part.pop('type')
            part['type'] = wrapper
            part['quant'] = dict(w_bits=4, a_bits=4)
    return cfg


@pytest.mark.parametrize('name', list(STUDENTS))
def test_a_step(name, tmp_path):
    torch.manual_seed(0)
    _, channels, logits = STUDENTS[name]
    float_cfg = tiny(name)
    torch.save(MODELS.build(float_cfg).state_dict(), tmp_path / 'teacher.pth')
    cfg = quantized(float_cfg)
    heads = dict(
        neck=dict(
            type='FeatureKDHead',
            student_channels=channels,
            strides=strides(name, len(channels)),
        )
    )
    if logits:
        heads['cls'] = dict(type='LogitKDHead')
    cfg.update(
        detector=cfg.type,
        type='GoRDetector',
        teachers=dict(
            same=dict(
                config=float_cfg, checkpoint=str(tmp_path / 'teacher.pth')
            )
        ),
        kd_heads=heads,
        gor_weighting=dict(type='GoRWeighting'),
    )
    model = MODELS.build(cfg)
    model.build_teachers()
    batch = make_batch(side=128)
    calibrate(
        model, [copy.deepcopy(batch)], lambda b: model(**b, mode='tensor')
    )
    model.train()
    loss, outputs = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert {f'loss_kd_{key}' for key in heads} <= set(outputs)
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    stock = [
        key
        for key, layer in model.named_modules()
        if isinstance(layer, layers)
        and not hasattr(layer, 'weight_quantizer')
        and not key.startswith('kd_heads.')
    ]
    assert stock == []
    idle = [
        key
        for key, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    # MobileNetV2 always has its last layer, which YOLOv3 does not use.
    assert [k for k in idle if not k.startswith('backbone.conv2.')] == []
