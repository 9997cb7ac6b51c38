"""The parts of a detector that are wrapped."""

import pytest
from mmengine.config import ConfigDict

from mmgor.conversion.parts import detector_class, find_parts
from mmgor.registry import MODELS
from tests.support.students import tiny

TWO_STAGE = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'


def places(model):
    built = MODELS.build(ConfigDict(model))
    return {part.path: part for part in find_parts(model, built)}


def test_backbone_neck_and_all_heads_in_this_order():
    found = places(tiny(TWO_STAGE))
    assert [(p.path, p.wrapper) for p in found.values()] == [
        ('backbone', 'QuantBackbone'),
        ('neck', 'QuantNeck'),
        ('rpn_head', 'QuantHead'),
        ('roi_head.bbox_head', 'QuantHead'),
    ]


def test_an_extractor_with_layers_is_wrapped_as_a_neck():
    model = tiny(TWO_STAGE)
    extractor = model.roi_head.bbox_roi_extractor
    extractor.update(
        type='GenericRoIExtractor',
        aggregation='sum',
        pre_cfg=dict(
            type='ConvModule', in_channels=16, out_channels=16, kernel_size=1
        ),
    )
    found = places(model)['roi_head.bbox_roi_extractor']
    assert found.wrapper == 'QuantNeck'


def test_a_list_tells_which_of_its_modules_have_layers():
    model = tiny('retinanet/retinanet_r18_fpn_1x_coco')
    pyramid = dict(type='BFP', in_channels=16, num_levels=5, refine_level=1)
    model.neck = [model.neck, pyramid]  # BFP has layers with refine_type only
    assert places(model)['neck'].wrapped == (True, False)


def test_a_part_without_layers_is_left_out():
    model = tiny('retinanet/retinanet_r18_fpn_1x_coco')
    model.neck = dict(type='BFP', in_channels=8, num_levels=5)
    model.backbone.update(out_indices=(1,))
    del model.bbox_head
    built = MODELS.build(ConfigDict(type='BFP', in_channels=8, num_levels=5))
    built.add_module('backbone', MODELS.build(model.backbone))
    built.add_module('neck', MODELS.build(model.neck))
    found = find_parts(model, built)
    assert [part.path for part in found] == ['backbone']


@pytest.mark.parametrize(
    'model, reason',
    [
        (dict(type='ResNet', depth=18), "type='ResNet'"),
        (dict(type='Nothing'), "type='Nothing'"),
        (dict(type='GoRDetector', detector='ATSS'), 'a student'),
        (
            dict(type='ByteTrack', detector=dict(type='YOLOX')),
            'a detector inside, YOLOX',
        ),
    ],
)
def test_what_is_no_float_detector_is_refused(model, reason):
    with pytest.raises(ValueError, match=reason):
        detector_class(model)
