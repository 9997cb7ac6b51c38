"""RetinaNet-R18 at W4A4 learns from RetinaNet-R101 (COCO).

Backbone, neck and head at 4 bits, first and prediction layers at 8; class
logits and pyramid features are distilled, GoR weighs them against the task.
Student and teacher are the model zoo's checkpoints.
"""

_base_ = '../_base_/models/retinanet_r18_quant.py'

model = dict(
    type='GoRDetector',
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
    gor_weighting=dict(type='GoRWeighting'),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'gor_weighting.': dict(decay_mult=0.0)})
)
custom_hooks = [
    dict(type='QuantCalibrationHook'),
    dict(type='GoRWeightHook'),
    dict(type='NonFiniteLossHook'),
]
