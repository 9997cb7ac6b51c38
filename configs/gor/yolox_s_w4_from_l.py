"""YOLOX-s at W4A4 learns from YOLOX-l (COCO).

Mosaic, MixUp, multi-scale batches and EMA are as in the stock recipe.
"""

_base_ = [
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    '../_base_/gor/w4_yolox.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    teachers=dict(
        l=dict(
            config='mmdet::yolox/yolox_l_8xb8-300e_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'yolox/yolox_l_8x8_300e_coco/'
            'yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth',
        )
    ),
    kd_heads=dict(neck=dict(student_channels=128, teacher_channels=256)),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'yolox/yolox_s_8x8_300e_coco/'
    'yolox_s_8x8_300e_coco_20211121_095711-4592a793.pth'
)
