"""ATSS-R50 at W4A4 learns from ATSS-R101 (COCO)."""

_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../_base_/gor/w4_resnet_fpn.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='ATSS',
    bbox_head=dict(type='QuantHead', head='ATSSHead', quant=_base_.quant),
    teachers=dict(
        r101=dict(
            config='mmdet::atss/atss_r101_fpn_1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'atss/atss_r101_fpn_1x_coco/'
            'atss_r101_fpn_1x_20200825-dfcadd6f.pth',
        )
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/atss/'
    'atss_r50_fpn_1x_coco/'
    'atss_r50_fpn_1x_coco_20200209-985f7bd0.pth'
)
