"""Which parts of a detector a file has."""

import copy

import pytest
import torch
from torch import nn

from mmgor.deploy.parts import parts_of
from mmgor.registry import MODELS
from tests.support.models import make_batch, retinanet_cfg
from tests.support.students import quantized, student_of_itself, tiny

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'
DETR = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco'


def build(name, **changes):
    cfg = tiny(name)
    cfg.update(changes)
    return MODELS.build(cfg)


def with_children(**children):
    detector = nn.Module()
    for name, child in children.items():
        detector.add_module(name, child)
    return detector


def test_a_file_has_a_whole_single_stage_detector():
    detector = MODELS.build(retinanet_cfg()).eval()
    parts = parts_of(detector)
    assert (parts.head, parts.rest) == ('bbox_head', [])
    assert parts.of(detector) is detector
    images = torch.randn(1, 3, 64, 64)
    scores, boxes = parts.outputs(detector, images)
    assert [len(scores), len(boxes)] == [5, 5]
    assert parts.name((scores, boxes))[1][4] == 'output_1_4'
    samples = make_batch(size=1)['data_samples']
    (wanted,) = detector.predict(images, copy.deepcopy(samples))
    detector.backbone = None  # it does not run
    with parts.giving(detector, (scores, boxes)):
        (got,) = detector.predict(images, samples)
    assert len(got.pred_instances) == 10
    for key in ('bboxes', 'scores', 'labels'):
        torch.testing.assert_close(
            got.pred_instances[key], wanted.pred_instances[key]
        )


def test_what_only_training_needs_is_no_part(tmp_path):
    detector = MODELS.build(student_of_itself(FASTER, tmp_path))
    parts = parts_of(detector)
    assert parts.rest == ['roi_head']
    names = [name for name, _ in parts.of(detector).named_children()]
    assert names == ['data_preprocessor', *parts.written]


def test_quantized_parts_are_found_too():
    parts = parts_of(MODELS.build(quantized(tiny(FASTER))))
    assert (parts.head, parts.rest) == ('rpn_head', ['roi_head'])


def test_backbone_neck_and_rpn_of_two_stages():
    detector = build(FASTER).eval()
    parts = parts_of(detector)
    assert parts.head == 'rpn_head'
    assert parts.written == ['backbone', 'neck', 'rpn_head']
    assert parts.rest == ['roi_head']
    part = parts.of(detector)
    assert [name for name, _ in part.named_children()] == [
        'data_preprocessor',
        *parts.written,
    ]
    assert detector.roi_head is not None  # it still has all
    images = torch.randn(1, 3, 64, 64)
    features, outputs = parts.outputs(part, images)
    wanted = detector.extract_feat(images)
    for got, want in zip(features, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    for got, want in zip(outputs, detector.rpn_head(wanted), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    names = parts.name([features, outputs])
    assert names[0] == [f'features_{i}' for i in range(5)]
    assert names[1][1] == [f'rpn_head_1_{i}' for i in range(5)]


def test_backbone_and_neck_of_transformers():
    detector = build(DETR).eval()
    parts = parts_of(detector)
    assert (parts.head, parts.written) == (None, ['backbone', 'neck'])
    assert {'encoder', 'decoder', 'bbox_head'} <= set(parts.rest)
    (features,) = parts.outputs(parts.of(detector), torch.zeros(1, 3, 64, 64))
    assert parts.name([features]) == [[f'features_{i}' for i in range(4)]]
    text = parts.describe(detector)
    assert text.startswith(
        'in the file: backbone (ResNet), neck (ChannelMapper); not in the '
        'file: bbox_head (DeformableDETRHead), '
    )
    assert 'decoder (DeformableDetrTransformerDecoder, is a transfo' in text


def test_an_rpn_that_is_called_in_another_way_stays_outside():
    """Its proposals are learned queries."""
    rpn = dict(type='EmbeddingRPNHead', num_proposals=4)
    rpn['proposal_feature_channel'] = 16
    parts = parts_of(build(FASTER, rpn_head=rpn))
    assert (parts.head, parts.rest) == (None, ['rpn_head', 'roi_head'])


def test_a_dense_head_beside_a_mask_head():
    head = MODELS.build(retinanet_cfg().bbox_head)
    detector = with_children(
        backbone=nn.Identity(), bbox_head=head, mask_head=nn.Identity()
    )
    parts = parts_of(detector)
    assert (parts.head, parts.rest) == ('bbox_head', ['mask_head'])


@pytest.mark.parametrize(
    'children, message',
    [
        (['backbone', 'panoptic_head'], r'panoptic_head \(Identity\) gives m'),
        (['backbone', 'bbox_head', 'language_model'], 'l .* reads text'),
        (['backbone', 'neck'], 'it has no bbox_head'),
        (['roi_head'], 'it has no backbone'),
        ([], 'no bbox_head; it has no backbone. Expected a single-stage'),
    ],
)
def test_other_models_are_refused(children, message):
    detector = with_children(**{name: nn.Identity() for name in children})
    with pytest.raises(ValueError, match=f'Module can not be .*{message}'):
        parts_of(detector)
