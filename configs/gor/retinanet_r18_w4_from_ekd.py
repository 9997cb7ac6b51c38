"""RetinaNet-R18 at W4A4 learns from RetinaNet, ATSS and YOLOX (COCO).

QAT-EKD-GoR: the class scores of the three teachers are fused into one target,
location by location; the most certain teacher has the largest weight there.
Boxes and FPN features come from the RetinaNet alone. GoR weighs the task loss
and the sum of the KD losses.
"""

_base_ = './retinanet_r18_w4_from_r101.py'

zoo = 'https://download.openmmlab.com/mmdetection/v2.0/'
ensemble = ['r101', 'atss', 'yolox']
model = dict(
    teachers=dict(
        atss=dict(
            config='mmdet::atss/atss_r101_fpn_1x_coco.py',
            checkpoint=zoo + 'atss/atss_r101_fpn_1x_coco/'
            'atss_r101_fpn_1x_20200825-dfcadd6f.pth',
        ),
        yolox=dict(
            config='mmdet::yolox/yolox_l_8xb8-300e_coco.py',
            checkpoint=zoo + 'yolox/yolox_l_8x8_300e_coco/'
            'yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth',
        ),
    ),
    kd_heads=dict(
        cls=dict(
            _delete_=True,
            type='ScoreKDHead',
            teacher=ensemble,
            fusion='confidence',
        ),
        box=dict(type='BoxKDHead', teacher='r101'),
        neck=dict(teacher='r101'),
    ),
)
