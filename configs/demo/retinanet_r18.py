"""The teacher where no pretrained backbone is at hand: RetinaNet-R18 at full
width, from scratch."""

_base_ = './retinanet_r18half.py'
model = dict(
    backbone=dict(base_channels=64, stem_channels=64),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128),
)
