"""Networks that can't be exported are refused before the trace."""

import pytest
from mmcv.ops import MaskedConv2d
from torch import nn

from mmgor.deploy.export.network import Network
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg
from tests.support.students import tiny


def test_detectors_without_a_head_are_refused():
    with pytest.raises(ValueError, match='has no bbox_head'):
        Network(nn.Module())


def test_operators_of_mmcv_are_refused():
    detector = MODELS.build(quantized_cfg())
    detector.neck.lateral_convs[1] = MaskedConv2d(8, 8, 3)
    name = r"neck\.lateral_convs\.1': 'MaskedConv2d'"
    with pytest.raises(ValueError, match=name):
        Network(detector)


def test_operators_of_parts_that_are_not_written_do_not_matter():
    """The RoI head has RoIAlign, the RPN what the test puts in."""
    detector = MODELS.build(tiny('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'))
    Network(detector)
    detector.rpn_head.rpn_conv = MaskedConv2d(16, 16, 3)
    with pytest.raises(ValueError, match=r"rpn_head\.rpn_conv': 'MaskedConv"):
        Network(detector)
