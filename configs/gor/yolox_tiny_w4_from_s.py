"""YOLOX-tiny at W4A4 learns from YOLOX-s (COCO).

Mosaic, multi-scale batches and EMA are as in the stock recipe.
"""

_base_ = [
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    '../_base_/gor/w4_yolox.py',
]
_base_.merge(_base_.pop('gor'))

model = dict(
    teachers=dict(
        s=dict(
            config='mmdet::yolox/yolox_s_8xb8-300e_coco.py',
            checkpoint='https://download.openmmlab.com/mmdetection/v2.0/'
            'yolox/yolox_s_8x8_300e_coco/'
            'yolox_s_8x8_300e_coco_20211121_095711-4592a793.pth',
        )
    ),
    kd_heads=dict(neck=dict(student_channels=96, teacher_channels=128)),
)
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'yolox/yolox_tiny_8x8_300e_coco/'
    'yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'
)
