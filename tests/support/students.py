"""Stock detectors of every family at tiny sizes, float and quantized."""

import copy

import torch
from mmengine.hub import get_config

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
    neck = dict(student_channels=16)
    return dict(backbone=R18, neck=FPN, bbox_head=head), neck, True


def detr():
    """Two encoder and two decoder layers. They have 256 channels, the width of
    mmdet's box embedding."""
    ffn = dict(ffn_cfg=dict(feedforward_channels=32))
    model = dict(
        num_queries=10,
        backbone=R18,
        neck=dict(in_channels=[16, 32, 64]),
        encoder=dict(num_layers=2, layer_cfg=ffn),
        decoder=dict(num_layers=2, layer_cfg=ffn),
    )
    neck = dict(student_channels=256, strides=(8, 16, 32, 64))
    return model, neck, False


THREE = dict(student_channels=16, strides=(8, 16, 32))
# Stock config -> overrides that make it tiny, arguments of FeatureKDHead,
# whether it has a LogitKDHead.
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
        dict(student_channels=16, strides=(32,)),
        True,
    ),
    'yolox/yolox_nano_8xb8-300e_coco': (
        dict(
            backbone=dict(widen_factor=0.125),
            neck=dict(in_channels=[32, 64, 128], out_channels=16),
            bbox_head=dict(in_channels=16, feat_channels=16),
        ),
        THREE,
        True,
    ),
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco': (
        dict(
            backbone=dict(init_cfg=None),
            neck=dict(out_channels=[16, 16, 16]),
            bbox_head=dict(in_channels=[16] * 3, out_channels=[16] * 3),
        ),
        THREE,
        False,
    ),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': (
        dict(
            backbone=dict(widen_factor=0.125, init_cfg=None),
            neck=dict(in_channels=[32, 64, 128], out_channels=16),
            bbox_head=dict(in_channels=16, feat_channels=16),
        ),
        THREE,
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
        dict(student_channels=16, strides=(4, 8, 16, 32, 64)),
        False,
    ),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': detr(),
    'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco': (
        detr()
    ),
    'dino/dino-4scale_r50_8xb2-12e_coco': detr(),
}


def tiny(name):
    cfg = get_config(f'mmdet::{name}.py')
    cfg.merge_from_dict(dict(model=copy.deepcopy(STUDENTS[name][0])))
    # Without multi-scale batches the images keep their size.
    cfg.model.data_preprocessor.pop('batch_augments', None)
    return cfg.model


def quantized(cfg):
    cfg = copy.deepcopy(cfg)
    wrapped = [
        (cfg, 'backbone', 'QuantBackbone', 'backbone'),
        (cfg, 'neck', 'QuantNeck', 'neck'),
        (cfg, 'bbox_head', 'QuantHead', 'head'),
        (cfg, 'rpn_head', 'QuantHead', 'head'),
        (cfg.get('roi_head') or {}, 'bbox_head', 'QuantHead', 'head'),
    ]
    for parent, key, wrapper, argument in wrapped:
        if key in parent:
            part = parent[key]
            part[argument] = part.pop('type')
            part['type'] = wrapper
            part['quant'] = dict(w_bits=4, a_bits=4)
    if 'decoder' in cfg:
        cfg.update(type=f'Quant{cfg.type}', quant=dict(w_bits=4, a_bits=4))
    return cfg


def student_of_itself(name, folder):
    """Config of a quantized student whose teacher is the same detector in
    float. The teacher's weights are written into ``folder``."""
    _, neck, logits = STUDENTS[name]
    float_cfg = tiny(name)
    # A copy, since DETRs write into their config.
    teacher = MODELS.build(copy.deepcopy(float_cfg))
    teacher.init_weights()  # without it, DETR's level_embed is uninitialised
    torch.save(teacher.state_dict(), folder / 'teacher.pth')
    cfg = quantized(float_cfg)
    heads = dict(neck=dict(type='FeatureKDHead', **neck))
    if logits:
        heads['cls'] = dict(type='LogitKDHead')
    if logits or cfg.type == 'YOLOV3':
        heads['score'] = dict(type='ScoreKDHead')
        heads['box'] = dict(type='BoxKDHead')
    cfg.update(
        detector=cfg.type,
        type='GoRDetector',
        teachers=dict(
            same=dict(config=float_cfg, checkpoint=str(folder / 'teacher.pth'))
        ),
        kd_heads=heads,
        gor_weighting=dict(type='GoRWeighting'),
    )
    return cfg
