"""Detectors that can't be exported are refused before the trace."""

import pytest
from mmcv.ops import MaskedConv2d
from torch import nn

from mmgor.deploy.export.network import Network
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg


def test_two_stage_detectors_are_refused():
    detector = nn.Module()
    detector.roi_head = nn.Identity()
    with pytest.raises(ValueError, match='expected a single-stage detector'):
        Network(detector)


def test_mask_heads_are_refused():
    detector = nn.Module()
    detector.bbox_head = detector.mask_head = nn.Identity()
    with pytest.raises(ValueError, match=r'not exported .*a mask head'):
        Network(detector)


def test_operators_of_mmcv_are_refused():
    detector = MODELS.build(quantized_cfg())
    detector.neck.lateral_convs[1] = MaskedConv2d(8, 8, 3)
    name = r"neck\.lateral_convs\.1': 'MaskedConv2d'"
    with pytest.raises(ValueError, match=name):
        Network(detector)
