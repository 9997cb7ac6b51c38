"""The teacher if there is no pretrained backbone: RetinaNet-R18 at full width,
in float, from scratch."""

_base_ = './retinanet_r18half.py'
model = dict(
    backbone=dict(base_channels=64, stem_channels=64),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128),
)
