"""YOLOv3-MobileNetV2 at W4A4 learns from YOLOv3-Darknet53 (COCO).

Only neck features are distilled: YOLOv3's head gives classes, boxes and
objectness in one output.
"""

_base_ = [
    'mmdet::yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py',
    '../_base_/gor/w4.py',
]
_base_.merge(_base_.pop('gor'))

quant = _base_.quant
model = dict(
    detector='YOLOV3',
    backbone=dict(
        type='QuantBackbone',
        backbone='MobileNetV2',
        quant=quant,
        init_cfg=None,
    ),
    neck=dict(type='QuantNeck', neck='YOLOV3Neck', quant=quant),
    bbox_head=dict(type='QuantHead', head='YOLOV3Head', quant=quant),
    teachers=dict(
        d53=dict(
            config='mmdet::yolo/yolov3_d53_8xb8-ms-416-273e_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'yolo/yolov3_d53_mstrain-416_273e_coco/'
            'yolov3_d53_mstrain-416_273e_coco-2b60fcd9.pth',
        )
    ),
    kd_heads=dict(
        neck=dict(
            type='FeatureKDHead',
            student_channels=96,
            teacher_channels=[128, 256, 512],
            strides=(8, 16, 32),
        )
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'yolo/yolov3_mobilenetv2_mstrain-416_300e_coco/'
    'yolov3_mobilenetv2_mstrain-416_300e_coco_20210718_010823-f68a07b3.pth'
)
