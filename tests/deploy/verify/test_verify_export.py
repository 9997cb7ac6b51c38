"""Differences by hand; an export compared with its and other checkpoints."""

import pytest
import torch
from mmengine.structures import InstanceData

from mmgor.datasets.shapes import CLASSES
from mmgor.deploy.runtime.runtime_detector import RuntimeDetector
from mmgor.deploy.verify.comparison import (
    OutputDifference,
    Verification,
    match_detections,
)
from mmgor.deploy.verify.verify_export import verify_export
from mmgor.registry import MODELS
from tests.support.tools import run_tool


def test_difference_by_hand():
    difference = OutputDifference('output_0_0')
    # Mean 3, deviations -2, -2, 0, 4: the standard deviation is sqrt(6).
    difference.add(
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[1.0, 1.0]]),
    )
    difference.add(
        torch.tensor([[3.0, 7.0]]),
        torch.tensor([[1.0, 7.0]]),
        torch.tensor([[4.0, 8.0]]),
    )
    unit = 6**0.5
    assert difference.own == pytest.approx(2 / 4 / unit)
    assert difference.unit == pytest.approx(unit)
    assert difference.mean == pytest.approx(3 / 4 / unit)
    assert difference.max == pytest.approx(2 / unit)


def test_quantile_leaves_out_the_largest_percent():
    difference = OutputDifference('output_0_0')
    reference = torch.tensor([-1.0, 1.0]).repeat(500)[None]
    apart = torch.full_like(reference, 0.5)
    apart[:, -9:] = 7.0
    difference.add(reference, reference + apart, reference)
    assert difference.unit == pytest.approx(1.0)
    assert difference.quantile == pytest.approx(0.5)
    assert difference.max == pytest.approx(7.0)


def test_constant_outputs_have_unit_one():
    difference = OutputDifference('output_0_0')
    reference = torch.full((1, 4), 0.1)
    difference.add(reference, torch.full((1, 4), 0.3), reference)
    assert difference.mean == pytest.approx(0.2)


def test_outputs_that_vary_in_the_last_digits_are_constant():
    difference = OutputDifference('output_0_0')
    digit = torch.finfo(torch.float32).eps
    reference = torch.tensor([[7.5, 7.5 + 8 * digit]])
    difference.add(reference, reference + 8 * digit, reference)
    assert difference.mean == pytest.approx(8 * digit)


@pytest.mark.parametrize(
    'got, changed, fails',
    [
        (1.0, 1.0, False),
        (1.19, 1.0, False),
        (1.21, 1.0, True),
        (torch.nan, 1.0, True),
        # PyTorch itself moves by 0.15: twice that is tolerated.
        (1.59, 0.7, False),
        (1.61, 0.7, True),
        # It moves by 0.5, or is not finite: never more than 0.5, or 0.1.
        (1.99, 0.0, False),
        (2.01, 0.0, True),
        (1.19, torch.inf, False),
        (1.21, torch.inf, True),
        (1.21, torch.nan, True),
    ],
)
def test_mean_above_tolerance_fails(got, changed, fails):
    difference = OutputDifference('output_0_0')
    # One of two values is moved: the mean is half of the difference.
    difference.add(*torch.tensor([[-1, 1.0], [-1, got], [-1, changed]]))
    lines = Verification([difference]).failures(mean_tolerance=0.1)
    assert [line.startswith('output_0_0: mean') for line in lines] == (
        [True] if fails else []
    )


@pytest.mark.parametrize(
    'ours, theirs, expected',
    [
        ({'coco/bbox_mAP': 0.471}, {'coco/bbox_mAP': 0.470}, []),
        ({'coco/bbox_mAP': 0.470}, {'coco/bbox_mAP': 0.471}, []),
        (
            {'coco/bbox_mAP': 0.471},
            {'coco/bbox_mAP': 0.469},
            ['coco/bbox_mAP: 47.1 and 46.9, tolerated 0.1 points'],
        ),
        # Other metrics are not compared.
        (
            {'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.471},
            {'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.4},
            [],
        ),
        (
            {'coco/bbox_mAP': 0.471},
            {},
            ['coco/bbox_mAP: only one side has detections'],
        ),
        (
            {'coco/bbox_mAP': 0.471},
            {'coco/bbox_mAP': torch.nan},
            ['coco/bbox_mAP: 47.1 and nan, tolerated 0.1 points'],
        ),
    ],
)
def test_map_tolerance(ours, theirs, expected):
    assert Verification(metrics=[ours, theirs]).failures() == expected


@pytest.mark.parametrize(
    'metrics, got', [({}, 'none'), ({'lvis/bbox_AP': 0.4}, 'lvis/bbox_AP')]
)
def test_an_evaluation_without_map_fails(metrics, got):
    (line,) = Verification(metrics=[metrics, metrics]).failures()
    assert line.startswith('no mAP to compare: ')
    assert got in line


@pytest.mark.parametrize(
    'matched, fails', [(10, False), (8, False), (7, True), (0, True)]
)
def test_share_of_matched_detections(matched, fails):
    total = Verification(detections=10, matched=matched)
    lines = [f'detections: the other side has {matched} of 10'] * fails
    found = total.failures(matched_share=0.8)
    assert [line.split(', expected')[0] for line in found] == lines
    assert total.failures(matched_share=0) == []
    assert len(total.failures(matched_share=float('nan'))) == 1


def test_pytorch_may_lose_detections_by_itself():
    # It finds 8 of 10 again: the file may lose 2 * 2 of 10.
    for matched, fails in ((6, False), (5, True)):
        total = Verification(
            detections=10, matched=matched, own_detections=10, own_matched=8
        )
        assert len(total.failures(matched_share=0.75)) == fails
    assert 'PyTorch itself, after 1e-06' in total.text()
    total.own_matched, total.matched = 10, 8
    assert total.failures(matched_share=0.75) == []
    # It finds 2 of 10: the file must still have half of them.
    for total.matched, fails in ((5, False), (4, True)):
        total.own_matched = 2
        assert len(total.failures(matched_share=0.75)) == fails


def found(*rows):
    """Square boxes from rows of (x, side, label, score), at (x, 0)."""
    rows = torch.tensor(rows).reshape(-1, 4)
    x, side, label, score = rows.unbind(1)
    return InstanceData(
        bboxes=torch.stack([x, x * 0, x + side, side], 1),
        labels=label.long(),
        scores=score,
    )


def test_matches_by_hand():
    ours = found((0, 100, 0, 0.5), (0, 100, 0, 0.9), (500, 100, 1, 0.4))
    theirs = found(
        (4, 100, 0, 0.6),  # IoU 96 / 104 = 0.92 with the first two
        (500, 100, 0, 0.4),  # another class
        (506, 100, 1, 0.4),  # IoU 94 / 106 = 0.89
    )
    assert match_detections(ours, theirs) == [(1, 0)]
    assert match_detections(theirs, ours) == [(0, 0)]
    assert match_detections(ours, found()) == []
    assert match_detections(found(), theirs) == []


def test_detections_are_counted_on_both_sides():
    total = Verification()
    # A pair of high scores, a pair with one low score, one without a
    # partner, and one of a low score.
    ours = found((0, 9, 0, 0.9), (50, 9, 0, 0.35), (200, 9, 0, 0.1))
    theirs = found((0, 9, 0, 0.8), (50, 9, 0, 0.2), (90, 9, 0, 0.7))
    total.add_detections(ours, theirs)
    assert (total.detections, total.matched) == (4, 3)
    assert total.score_difference == pytest.approx(0.15)
    total.add_own_detections(theirs, theirs)
    assert (total.own_detections, total.own_matched) == (4, 4)
    assert total.images == 1


@pytest.mark.parametrize('suffix', ['onnx', 'xml'])
def test_the_checkpoint_of_the_file(suffix, exported):
    path = getattr(exported, suffix)
    result = verify_export(
        exported.cfg(), exported.checkpoint, path, images=2, evaluate=True
    )
    assert result.failures() == []
    assert result.images == 4  # one batch
    assert [o.name for o in result.outputs[:2]] == ['output_0_0', 'output_0_1']
    assert len(result.outputs) == 10
    assert all(o.own < 0.1 for o in result.outputs)
    assert result.own_matched > 0.8 * result.own_detections > 0
    assert all('coco/bbox_mAP' in side for side in result.metrics)
    assert result.detections > 0
    assert result.matched > 0.8 * result.detections


def test_pytorch_moves_by_itself(exported, monkeypatch):
    """A millionth moves nothing in this small network, a hundredth does."""
    name = 'mmgor.deploy.verify.verify_export.CHANGE'
    monkeypatch.setattr(name, 0.01)
    argv = [exported.cfg(), exported.checkpoint, exported.onnx]
    result = verify_export(*argv, images=2)
    assert all(0 < o.own < 0.5 for o in result.outputs)
    assert result.own_matched < result.own_detections


@pytest.fixture(scope='module')
def other(exported, tmp_path_factory):
    """A checkpoint with another box layer."""
    checkpoint = torch.load(exported.checkpoint)
    checkpoint['state_dict']['bbox_head.retina_reg.weight'].neg_()
    path = tmp_path_factory.mktemp('other') / 'other.pth'
    torch.save(checkpoint, path)
    return path


def test_another_checkpoint(exported, other):
    result = verify_export(exported.cfg(), other, exported.onnx)
    names = [line.split(':')[0] for line in result.failures()]
    outputs = [f'output_1_{level}' for level in range(5)]
    assert names == ['weights', *outputs, 'detections']
    assert result.metrics == []


def test_a_checkpoint_that_computes_nearly_the_same(exported, tmp_path):
    """As one of another epoch may: the weights still differ."""
    checkpoint = torch.load(exported.checkpoint)
    checkpoint['state_dict']['bbox_head.retina_cls.bias'] += 1e-6
    torch.save(checkpoint, tmp_path / 'near.pth')
    argv = [exported.cfg(), tmp_path / 'near.pth', exported.onnx]
    (line,) = verify_export(*argv).failures()
    assert line.startswith('weights: the file was exported from another')


def test_a_checkpoint_without_ranges(exported, tmp_path):
    checkpoint = torch.load(exported.checkpoint)
    weights = checkpoint['state_dict']
    weights['bbox_head.retina_cls.input_quantizer.qmax'].zero_()
    torch.save(checkpoint, tmp_path / 'raw.pth')
    with pytest.raises(ValueError, match=r'1 quantized layers were never'):
        verify_export(exported.cfg(), tmp_path / 'raw.pth', exported.onnx)


def test_swapped_classes(exported, tmp_path):
    """The mean over an output may not show them, the detections do."""
    checkpoint = torch.load(exported.checkpoint)
    for part in ('weight', 'bias', 'weight_quantizer.log_scale'):
        values = checkpoint['state_dict'][f'bbox_head.retina_cls.{part}']
        # Nine anchors; every class gets the channels of the one before.
        anchors = values.clone().unflatten(0, (9, len(CLASSES)))
        values.copy_(anchors.roll(1, 1).flatten(0, 1))
    torch.save(checkpoint, tmp_path / 'swapped.pth')
    result = verify_export(
        exported.cfg(), tmp_path / 'swapped.pth', exported.onnx
    )
    lines = result.failures(mean_tolerance=99)
    assert [line.split(':')[0] for line in lines] == ['weights', 'detections']


def test_files_with_nms_are_compared_by_map(exported, monkeypatch):
    # A file without NMS whose metadata says that it gives detections.
    class Detecting(RuntimeDetector):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.runtime.metadata['nms'] = True

        def detect(self, images, samples, rescale=True):
            self.runtime.metadata['nms'] = False
            found = super().detect(images, samples, rescale)
            self.runtime.metadata['nms'] = True
            return found

    monkeypatch.setitem(MODELS.module_dict, 'RuntimeDetector', Detecting)
    argv = [exported.cfg(), exported.checkpoint, exported.onnx]
    with pytest.raises(ValueError, match=r'gives detections.* Type --map'):
        verify_export(*argv)
    result = verify_export(*argv, evaluate=True)
    assert result.outputs == [] and result.images == 4
    assert result.own_detections > 0
    assert result.failures() == []
    assert 'Raw outputs' not in result.text()


def test_number_of_images(exported):
    with pytest.raises(ValueError, match='images must be an integer of'):
        verify_export(exported.cfg(), exported.checkpoint, exported.onnx, 0)


def status_of(monkeypatch, *argv):
    with pytest.raises(SystemExit) as status:
        run_tool(monkeypatch, 'verify_export', *argv)
    return status.value.code


@pytest.mark.slow
def test_tool(exported, other, monkeypatch, capsys):
    argv = [exported.config, exported.checkpoint, exported.onnx, '--map']
    assert status_of(monkeypatch, *argv) == 0
    shown = capsys.readouterr().out
    assert 'coco/bbox_mAP: PyTorch' in shown
    assert 'FAILED' not in shown
    argv[1] = other
    assert status_of(monkeypatch, *argv[:3]) == 1
    shown = capsys.readouterr().out
    assert 'FAILED weights: ' in shown
    assert 'FAILED output_1_0: mean difference' in shown
    argv = [*argv[:3], '--tolerance', '99']
    assert status_of(monkeypatch, *argv) == 1
    shown = capsys.readouterr().out
    assert 'FAILED output' not in shown and 'FAILED detections: ' in shown
    status_of(monkeypatch, *argv, '--matched', '0')
    assert 'FAILED detections: ' not in capsys.readouterr().out
