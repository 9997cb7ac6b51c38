"""GFL-R50 at W4A4 learns from GFL-R101 (COCO)."""

_base_ = [
    'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    '../_base_/gor/w4_resnet_fpn.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='GFL',
    bbox_head=dict(type='QuantHead', head='GFLHead', quant=_base_.quant),
    teachers=dict(
        r101=dict(
            config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'gfl/gfl_r101_fpn_mstrain_2x_coco/'
            'gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
        )
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'gfl/gfl_r50_fpn_1x_coco/'
    'gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth'
)
