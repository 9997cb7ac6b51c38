"""The teacher: RetinaNet on MobileNetV2, in float.

Give it a pretrained backbone (``model.backbone.init_cfg``): with one, its mAP
is far above the student's.
"""

_base_ = './retinanet_r18half.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(in_channels=[24, 32, 96, 320], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128),
)
