"""The teacher on generated scenes: RetinaNet-R18 at three quarters of its
width, in float, from scratch.

GroupNorm in neck and head lets it learn from scratch in fewer steps.
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
