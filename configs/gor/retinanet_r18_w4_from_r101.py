"""RetinaNet-R18 at W4A4 learns from RetinaNet-R101 (COCO).

Backbone, neck and head have 4 bits, the first convolution and the prediction
layers 8. Class logits and FPN features are distilled; GoR weighs the task loss
and the KD loss. Student and teacher start from the model zoo's checkpoints.
"""

_base_ = [
    '../_base_/models/retinanet_r18_quant.py',
    '../_base_/gor/distillation.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='RetinaNet',
    teachers=dict(
        r101=dict(
            config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'retinanet/retinanet_r101_fpn_2x_coco/'
            'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
        )
    ),
    kd_heads=dict(
        cls=dict(type='LogitKDHead'),
        neck=dict(type='FeatureKDHead', student_channels=256),
    ),
)
