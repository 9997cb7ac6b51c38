"""A tiny student, a tiny teacher and a batch for them."""

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData


def retinanet_cfg(channels: int = 8, fpn: int = 16, classes: int = 3) -> dict:
    """A float RetinaNet small enough to train in a test."""
    cfg = dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=channels,
            stem_channels=channels,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            frozen_stages=-1,
            norm_cfg=dict(type='BN', requires_grad=True),
            norm_eval=False,
            style='pytorch',
        ),
        neck=dict(
            type='FPN',
            in_channels=[channels * 2**i for i in range(4)],
            out_channels=fpn,
            start_level=1,
            add_extra_convs='on_input',
            num_outs=5,
        ),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=classes,
            in_channels=fpn,
            stacked_convs=1,
            feat_channels=fpn,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=3,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25
            ),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=dict(
            nms_pre=100,
            min_bbox_size=0,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=10,
        ),
    )
    return ConfigDict(cfg)


def quantized_cfg(**quant: object) -> dict:
    """The same RetinaNet with quantized backbone, neck and head."""
    cfg = retinanet_cfg()
    quant = quant or dict(w_bits=4, a_bits=4)
    for part, wrapper in (
        ('backbone', 'QuantBackbone'),
        ('neck', 'QuantNeck'),
        ('bbox_head', 'QuantHead'),
    ):
        key = 'head' if part == 'bbox_head' else part
        stock = cfg[part].pop('type')
        cfg[part] = dict(
            type=wrapper, **{key: stock}, quant=quant, **cfg[part]
        )
    return cfg


def student_cfg(teacher: dict, **overrides: object) -> dict:
    """A W4A4 student of one teacher; ``overrides`` replace its entries."""
    cfg = quantized_cfg()
    cfg.update(
        type='GoRDetector',
        detector='RetinaNet',
        teachers=dict(big=teacher),
        kd_heads=dict(
            cls=dict(type='LogitKDHead'),
            neck=dict(
                type='FeatureKDHead', student_channels=16, teacher_channels=24
            ),
        ),
        gor_weighting=dict(type='GoRWeighting'),
    )
    for key, value in overrides.items():
        cfg[key] = value  # update() would merge dicts
    return cfg


def make_batch(size: int = 2, side: int = 64, boxes: int = 2) -> dict:
    """A preprocessed batch, the same at every call.

    Args:
        size (int): Number of images.
        side (int): Height and width in pixels.
        boxes (int): Number of labelled boxes per image.

    Returns:
        dict: ``inputs`` of shape (size, 3, side, side) and ``data_samples``.
    """
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(size):
        low = torch.rand(boxes, 2, generator=generator) * side / 2
        instances = InstanceData(
            bboxes=torch.cat([low, low + side / 3], 1),
            labels=torch.arange(boxes) % 3,
        )
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(side, side),
                ori_shape=(side, side),
                pad_shape=(side, side),
                batch_input_shape=(side, side),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = instances
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
        )
        samples.append(sample)
    inputs = torch.randn(size, 3, side, side, generator=generator)
    return dict(inputs=inputs, data_samples=samples)
