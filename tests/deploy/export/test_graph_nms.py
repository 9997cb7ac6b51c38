import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmgor.deploy.export.graph_nms import GraphNMS, select_detections
from tests.support.dense_heads import build, features

SHAPE = (32, 32)
TEST_CFG = dict(
    nms_pre=1000,
    score_thr=0.2,
    max_per_img=12,
    nms=dict(type='nms', iou_threshold=0.5),
)
HEADS = [
    'retinanet',
    'retinanet_softmax',
    'fsaf',
    'atss',
    'ddod',
    'gfl',
    'fcos',
    'fcos_norm',
    'autoassign',
    'centernet',
    'rtmdet',
    'rtmdet_sep',
    'yolox',
    'yolof',
]


def make(name, clips=True, **test_cfg):
    head = build(name, test_cfg=ConfigDict(**{**TEST_CFG, **test_cfg}))
    if hasattr(head, 'bbox_coder'):
        head.bbox_coder.clip_border = clips
    with torch.no_grad():
        outputs = head(features(head, images=1))
        nms = GraphNMS(head, SHAPE, outputs)
    return head, outputs, nms


@pytest.mark.parametrize('clips', [True, False])
@pytest.mark.parametrize('name', HEADS)
def test_as_mmdet_detects(name, clips):
    # mmdet's YOLOXHead does not read max_per_img.
    limit = dict(max_per_img=1000) if name == 'yolox' else {}
    head, outputs, nms = make(name, clips, **limit)
    metas = [dict(img_shape=SHAPE, scale_factor=(1.0, 1.0))]
    with torch.no_grad():
        (expected,) = head.predict_by_feat(*outputs, batch_img_metas=metas)
        boxes, scores, labels = nms(outputs)
    assert len(expected.scores) > 1
    torch.testing.assert_close(scores, expected.scores)
    torch.testing.assert_close(labels, expected.labels)
    torch.testing.assert_close(boxes, expected.bboxes, atol=1e-4, rtol=1e-5)


def test_other_heads_are_named():
    with pytest.raises(ValueError, match='got YOLOV3Head with a way of its'):
        make('yolov3')


def test_outputs_that_do_not_fit_are_refused_before_tracing():
    head, (scores, _), _ = make('retinanet')
    with pytest.raises(ValueError, match=r'got 1 output.*leave out nms'):
        GraphNMS(head, SHAPE, (scores,))


def test_other_suppressions_are_named():
    with pytest.raises(ValueError, match=r"nms=\{'type': 'soft_nms'"):
        make('retinanet', nms=dict(type='soft_nms', iou_threshold=0.5))
    with pytest.raises(ValueError, match=r"'class_agnostic': True"):
        make('retinanet', nms=dict(iou_threshold=0.5, class_agnostic=True))
    with pytest.raises(ValueError, match=r"iou_threshold=.* got nms=\{'type'"):
        make('retinanet', nms=dict(type='nms'))
    with pytest.raises(ValueError, match=r'got .*min_bbox_size=12'):
        make('retinanet', min_bbox_size=12)
    make('retinanet', nms=dict(iou_threshold=0.5, class_agnostic=False))


BOXES = torch.tensor(
    [[[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30.0], [0, 0, 9, 10]]]
)
SCORES = torch.tensor([[[0.9, 0.1], [0.8, 0.7], [0.3, 0.0], [0.05, 0.6]]])


def test_by_hand():
    # Class 0: the second box overlaps the first by 9/11. Class 1: the last
    # overlaps the second by 8/11 and stays with a threshold of 0.75.
    boxes, scores, labels = select_detections(BOXES, SCORES, 0.5, 0.2, 9)
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert labels.tolist() == [0, 1, 0]
    assert boxes[1].tolist() == [1, 0, 11, 10]
    scores = select_detections(BOXES, SCORES, 0.75, 0.2, 3)[1]
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert len(select_detections(BOXES, SCORES, 0.5, 0.95, 9)[0]) == 0


class Selection(nn.Module):
    def __init__(self, thr):
        super().__init__()
        self.thr = thr

    def forward(self, boxes, scores):
        return select_detections(boxes, scores, 0.5, self.thr, 2)


@pytest.mark.parametrize('thr', [0.2, 0.95])
def test_onnx_selects_the_same(tmp_path, thr):
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from mmgor.deploy.export.onnx_ops import OPSET, translations

    program = torch.onnx.export(
        Selection(thr).eval(),
        (BOXES, SCORES),
        input_names=['boxes', 'scores'],
        opset_version=OPSET,
        dynamo=True,
        custom_translation_table=translations(),
        verbose=False,
    )
    program.save(tmp_path / 'nms.onnx')
    session = ort.InferenceSession(tmp_path / 'nms.onnx')
    got = session.run(None, dict(boxes=BOXES.numpy(), scores=SCORES.numpy()))
    expected = select_detections(BOXES, SCORES, 0.5, thr, 2)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(torch.from_numpy(b), a)
