"""The teacher on generated scenes, in float, from scratch: RetinaNet on a
ResNet-18 of three quarters of the stock width.

GroupNorm in neck and head: detectors that start from random weights learn
better with normalization there (He et al., Rethinking ImageNet Pre-training,
ICCV 2019).
"""

_base_ = './retinanet_r18half.py'
norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    backbone=dict(base_channels=48, stem_channels=48),
    neck=dict(
        in_channels=[48, 96, 192, 384], out_channels=96, norm_cfg=norm_cfg
    ),
    bbox_head=dict(in_channels=96, feat_channels=96, norm_cfg=norm_cfg),
)
