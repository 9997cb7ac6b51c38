"""Faster R-CNN-R50 at W4A4 learns from Faster R-CNN-R101 (COCO).

Pyramid features are distilled, since the box head is not dense. The region
proposal network is quantized too.
"""

_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
    detector='FasterRCNN',
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='FPN', quant=quant),
    rpn_head=dict(type='QuantHead', head='RPNHead', quant=quant),
    roi_head=dict(
        bbox_head=dict(type='QuantHead', head='Shared2FCBBoxHead', quant=quant)
    ),
    teachers=dict(
        r101=dict(
            config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'faster_rcnn/faster_rcnn_r101_fpn_2x_coco/'
            'faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-'
            '1d2dac9c.pth',
        )
    ),
    kd_heads=dict(
        neck=dict(
            type='FeatureKDHead',
            student_channels=256,
            strides=(4, 8, 16, 32, 64),
        ),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'faster_rcnn/faster_rcnn_r50_fpn_1x_coco/'
    'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
)
# Step sizes hardly move under SGD (docs/design.md).
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            '_quantizer.': dict(decay_mult=0.0),
            'gor_weighting.': dict(decay_mult=0.0),
        }
    ),
)
custom_hooks = [
    dict(type='QuantCalibrationHook'),
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
]
