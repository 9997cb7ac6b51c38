"""FCOS-R50 at W4A4 learns from FCOS-R101 (COCO)."""

_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../_base_/gor/w4_resnet_fpn.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='FCOS',
    bbox_head=dict(type='QuantHead', head='FCOSHead', quant=_base_.quant),
    teachers=dict(
        r101=dict(
            config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head-1x_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'fcos/fcos_r101_caffe_fpn_gn-head_1x_coco/'
            'fcos_r101_caffe_fpn_gn-head_1x_coco-0e37b982.pth',
        )
    ),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'fcos/fcos_r50_caffe_fpn_gn-head_1x_coco/'
    'fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth'
)
