"""Tiny stock heads of every dense family, and mmdet's own detections."""

import torch
from mmengine.config import ConfigDict

from mmgor.registry import MODELS

CLASSES = 3
SIDES = (4, 2, 1)  # of the feature maps of a 32 px image
STRIDES = [8, 16, 32]
ANCHORS = dict(
    type='AnchorGenerator',
    octave_base_scale=4,
    scales_per_octave=2,
    ratios=[0.5, 2.0],
    strides=STRIDES,
)
ONE_ANCHOR = dict(
    type='AnchorGenerator',
    octave_base_scale=8,
    scales_per_octave=1,
    ratios=[1.0],
    strides=STRIDES,
)
DELTAS = dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])
CE = dict(type='CrossEntropyLoss', use_sigmoid=False)
POINTS = dict(strides=STRIDES, regress_ranges=((-1, 32), (32, 64), (64, 1e8)))
FCOS = dict(type='FCOSHead', norm_cfg=None, **POINTS)
ATSS = dict(norm_cfg=None, anchor_generator=ONE_ANCHOR, bbox_coder=DELTAS)
RTMDET = dict(
    with_objectness=False,
    norm_cfg=None,
    anchor_generator=dict(
        type='MlvlPointGenerator', offset=0, strides=STRIDES
    ),
    bbox_coder=dict(type='DistancePointBBoxCoder'),
    loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True),
)
TOOD = dict(
    type='TOODHead',
    num_dcn=0,
    initial_loss_cls=dict(type='FocalLoss', use_sigmoid=True, activated=True),
    loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, activated=True),
    train_cfg=dict(
        initial_epoch=4,
        initial_assigner=dict(type='ATSSAssigner', topk=9),
        assigner=dict(type='TaskAlignedAssigner', topk=13),
        alpha=1,
        beta=6,
    ),
)
HEADS = dict(
    retinanet=dict(
        type='RetinaHead', anchor_generator=ANCHORS, bbox_coder=DELTAS
    ),
    retinanet_softmax=dict(
        type='RetinaHead',
        anchor_generator=ANCHORS,
        bbox_coder=DELTAS,
        loss_cls=CE,
    ),
    fsaf=dict(
        type='FSAFHead',
        anchor_generator=ONE_ANCHOR,
        bbox_coder=dict(type='TBLRBBoxCoder', normalizer=4.0),
        reg_decoded_bbox=True,
    ),
    ssd=dict(
        type='SSDHead',
        in_channels=(16, 16, 16),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            strides=STRIDES,
            ratios=([2], [2, 3], [2]),
            min_sizes=[8, 16, 24],
            max_sizes=[16, 24, 32],
        ),
        bbox_coder=DELTAS,
    ),
    atss=dict(type='ATSSHead', **ATSS),
    ddod=dict(type='DDODHead', use_dcn=False, **ATSS),
    paa=dict(type='PAAHead', score_voting=False, **ATSS),
    gfl=dict(
        type='GFLHead',
        reg_max=5,
        norm_cfg=None,
        anchor_generator=ONE_ANCHOR,
    ),
    tood=dict(**TOOD, anchor_type='anchor_free', **ATSS),
    tood_anchors=dict(**TOOD, anchor_type='anchor_based', **ATSS),
    fcos=FCOS,
    fcos_norm=dict(FCOS, norm_on_bbox=True, centerness_on_reg=True),
    autoassign=dict(type='AutoAssignHead', norm_cfg=None, **POINTS),
    centernet=dict(type='CenterNetUpdateHead', norm_cfg=None, **POINTS),
    vfnet=dict(
        type='VFNetHead',
        norm_cfg=None,
        anchor_generator=dict(ONE_ANCHOR, center_offset=0.0),
        **POINTS,
    ),
    rtmdet=dict(type='RTMDetHead', **RTMDET),
    rtmdet_sep=dict(
        type='RTMDetSepBNHead',
        **dict(RTMDET, norm_cfg=dict(type='BN'), with_objectness=True),
    ),
    yolox=dict(type='YOLOXHead', strides=STRIDES, use_depthwise=False),
    yolof=dict(
        type='YOLOFHead',
        in_channels=16,
        num_cls_convs=1,
        num_reg_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], scales=[1, 2], strides=[8]
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', add_ctr_clamp=True, ctr_clamp=4
        ),
    ),
    yolov3=dict(
        type='YOLOV3Head',
        in_channels=[16] * 3,
        out_channels=[16] * 3,
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            base_sizes=[
                [(6, 4), (9, 12)],
                [(16, 9), (20, 30)],
                [(30, 30)] * 2,
            ],
            strides=STRIDES,
        ),
        featmap_strides=STRIDES,
    ),
)
CHANNELS = dict(in_channels=16, feat_channels=16, stacked_convs=1)
OWN_CHANNELS = ('SSDHead', 'YOLOFHead', 'YOLOV3Head')


def build(name, **overrides):
    """A head with weights large enough that scores and boxes differ."""
    cfg = dict(HEADS[name], **overrides)
    if cfg['type'] not in OWN_CHANNELS:
        cfg = dict(CHANNELS, **cfg)
    # mmdet's nms_pre=-1 drops the worst box: topk=-1 slices [:-1].
    test_cfg = dict(
        nms_pre=10**6,
        score_thr=1e-30,
        max_per_img=10**6,
        nms=dict(type='nms', iou_threshold=1.0),
    )
    cfg.setdefault('test_cfg', test_cfg)
    torch.manual_seed(0)
    head = MODELS.build(ConfigDict(num_classes=CLASSES, **cfg)).eval()
    for key, p in head.named_parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=1.5 / p[0].numel() ** 0.5)
        elif key.endswith('bias'):
            torch.nn.init.normal_(p, std=0.3)
    if hasattr(head, 'bbox_coder'):
        head.bbox_coder.clip_border = False
    return head


def features(head, images=2):
    levels = len(head.prior_generator.strides)
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(images, 16, side, side, generator=generator)
        for side in SIDES[:levels]
    )


def only(outputs, head, level, y, x):
    """The outputs with a score of 0 everywhere except at one location."""
    name = type(head).__name__
    zero = 0.0 if name == 'TOODHead' else -1e4
    outputs = [[m.detach().clone() for m in o] for o in outputs]
    for i, scores in enumerate(outputs[0]):
        kept = scores[:, :, y, x].clone() if i == level else None
        if name == 'YOLOV3Head':
            scores.unflatten(1, (-1, 5 + CLASSES))[:, :, 5:] = zero
        elif getattr(head, 'use_sigmoid_cls', True):
            scores.fill_(zero)
        else:  # background is last
            scores.unflatten(1, (-1, CLASSES + 1))[:, :, :-1] = zero
        if kept is not None:
            scores[:, :, y, x] = kept
    return outputs


def predictions(head, outputs, images=2):
    """mmdet's own detections, unclipped, without nms."""
    metas = [dict(img_shape=(32, 32), scale_factor=(1.0, 1.0))] * images
    paa = type(head).__name__ == 'PAAHead'  # refuses with_nms=False
    if type(head).__name__ == 'SSDHead':  # mmdet 3.3 predicts by loss_cls,
        head.loss_cls = torch.nn.Identity()  # which SSDHead does not have
    with torch.no_grad():
        results = head.predict_by_feat(
            *outputs, batch_img_metas=metas, rescale=False, with_nms=paa
        )
    if paa:  # ranks by the square root
        for r in results:
            r.scores = r.scores**2
    return results
