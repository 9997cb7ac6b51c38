"""Faster R-CNN-R50 at W4A4 learns from Faster R-CNN-R101 (COCO).

Only FPN features are distilled: the box head gives one output per proposal,
and student and teacher have different proposals. The region proposal network
(RPN) is quantized, too.
"""

_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/gor/w4_resnet_fpn.py',
]
_base_.merge(_base_.pop('gor'))

quant = _base_.quant
model = dict(
    detector='FasterRCNN',
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
        _delete_=True,
        neck=dict(
            type='FeatureKDHead',
            student_channels=256,
            strides=(4, 8, 16, 32, 64),
        ),
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'faster_rcnn/faster_rcnn_r50_fpn_1x_coco/'
    'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
)
