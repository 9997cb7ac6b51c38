"""RetinaNet-R18 in float, fine-tuned from the same checkpoint and for as many
epochs as the quantized students."""

_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

model = dict(backbone=dict(init_cfg=None))
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
    'retinanet_r18_fpn_1x_coco/'
    'retinanet_r18_fpn_1x_coco_20220407_171055-614fd399.pth'
)
