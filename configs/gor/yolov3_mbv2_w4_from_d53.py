"""YOLOv3-MobileNetV2 at W4A4 learns from YOLOv3-Darknet53 (COCO).

Pyramid features are distilled: YOLOv3's head gives classes, boxes and
objectness in one output.
"""

_base_ = 'mmdet::yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

quant = dict(w_bits=4, a_bits=4)
model = dict(
    type='GoRDetector',
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
        ),
    ),
    gor_weighting=dict(type='GoRWeighting'),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'yolo/yolov3_mobilenetv2_mstrain-416_300e_coco/'
    'yolov3_mobilenetv2_mstrain-416_300e_coco_20210718_010823-f68a07b3.pth'
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
