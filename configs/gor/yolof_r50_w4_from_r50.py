"""YOLOF-R50 at W4A4 learns from its own float network (COCO).

The model zoo has no larger YOLOF. The neck has one output, of stride 32.
"""

_base_ = ['mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', '../_base_/gor/w4.py']
_base_.merge(_base_.pop('gor'))

quant = _base_.quant
model = dict(
    detector='YOLOF',
    backbone=dict(
        type='QuantBackbone', backbone='ResNet', quant=quant, init_cfg=None
    ),
    neck=dict(type='QuantNeck', neck='DilatedEncoder', quant=quant),
    bbox_head=dict(type='QuantHead', head='YOLOFHead', quant=quant),
    teachers=dict(
        float=dict(
            config='mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'yolof/yolof_r50_c5_8x8_1x_coco/'
            'yolof_r50_c5_8x8_1x_coco_20210425_024427-8e864411.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(type='FeatureKDHead', student_channels=512, strides=(32,)),
    ),
)
load_from = model['teachers']['float']['checkpoint']
