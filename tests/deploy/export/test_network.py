"""Detectors that can't be exported are refused before the trace."""

import pytest
from mmcv.ops import MaskedConv2d
from torch import nn

from mmgor.deploy.export.network import Network
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg
from tests.support.students import tiny


def test_two_stage_detectors_are_refused():
    """By their parts; the others are named too."""
    detector = MODELS.build(tiny('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'))
    message = (
        r'^FasterRCNN can not .*: roi_head \(StandardRoIHead\) pools .* image'
        r'\. What .*: backbone \(ResNet\), neck \(FPN\), rpn_head \(RPNHead'
    )
    with pytest.raises(ValueError, match=message):
        Network(detector)


def test_transformers_are_refused():
    detector = MODELS.build(
        tiny('deformable_detr/deformable-detr_r50_16xb2-50e_coco')
    )
    message = (
        r'encoder \(DeformableDetrTransformerEncoder\) is a transformer; '
        r'decoder \(DeformableDetrTransformerDecoder\) is a transformer\. '
    )
    with pytest.raises(ValueError, match=message):
        Network(detector)


def test_mask_heads_are_refused():
    detector = nn.Module()
    detector.bbox_head, detector.mask_head = nn.Identity(), nn.Identity()
    message = (
        r'mask_head \(Identity\) gives masks\. .*: bbox_head \(Identity\)'
    )
    with pytest.raises(ValueError, match=message):
        Network(detector)


def test_detectors_without_a_head_are_refused():
    with pytest.raises(ValueError, match=r'no bbox_head\. .*: nothing\. Exp'):
        Network(nn.Module())


def test_operators_of_mmcv_are_refused():
    detector = MODELS.build(quantized_cfg())
    detector.neck.lateral_convs[1] = MaskedConv2d(8, 8, 3)
    name = r"neck\.lateral_convs\.1': 'MaskedConv2d'"
    with pytest.raises(ValueError, match=name):
        Network(detector)
