"""RetinaNet-R50 at W4A4 learns from RetinaNet-X101-64x4d (COCO)."""

_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/gor/w4_resnet_fpn.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='RetinaNet',
    bbox_head=dict(type='QuantHead', head='RetinaHead', quant=_base_.quant),
    teachers=dict(
        x101=dict(
            config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'retinanet/retinanet_x101_64x4d_fpn_1x_coco/'
            'retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
        )
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
    'retinanet_r50_fpn_1x_coco/'
    'retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth'
)
