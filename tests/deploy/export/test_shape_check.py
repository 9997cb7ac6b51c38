"""Graphs in which the trace has made a size constant."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmgor.deploy.export import onnx_writer
from mmgor.deploy.export.frozen import FrozenInput
from mmgor.deploy.export.job import Job
from mmgor.deploy.export.shape_check import check_shapes, difference
from mmgor.quantization import Grid

pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')
SPEC = dict(
    name='images', batch=None, channels=2, height=None, width=None, divisor=32
)


class Tiny(nn.Module):
    """Rounds its input to three bits.

    Args:
        kept (str, optional): 'batch' or 'size': what the trace makes constant.
    """

    def __init__(self, kept):
        super().__init__()
        self.kept = kept
        grid = Grid(torch.tensor(0.5), torch.tensor(0), -4, 3)
        quantizer = SimpleNamespace(num_slots=1, grid=lambda *_: grid)
        self.input_quantizer = FrozenInput(quantizer, 4)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, images):
        x = images
        y = self.conv(self.input_quantizer(x))
        if self.kept == 'batch':
            # Computed in float, as the batch size in mmdet's Swin.
            y = y + int(x.shape[0] / (x.shape[1] / 2)) * y.mean(1, True)
        if self.kept == 'size':
            y = y[..., : 2 * int(x.shape[3] / (x.shape[1] / 2) / 4), :]
        return [y]


def traced(kept):
    torch.manual_seed(0)
    network = Tiny(kept).eval()
    images = torch.zeros(2, 2, 64, 64)
    metadata = dict(input=SPEC, outputs=['out'])
    job = Job(network, images, metadata, Path('x.onnx'), None, False)
    return network, onnx_writer._trace(job).model


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_right_for_every_size(suffix):
    network, model = traced(None)
    metadata = dict(input=SPEC, outputs=['out'])
    check_shapes(model, network, metadata, (64, 64), Path(f'x{suffix}'))


def test_a_constant_batch_size():
    network, model = traced('batch')
    metadata = dict(input=SPEC, outputs=['out'])
    message = (
        r'x\.onnx was not written: .* wrong for 1 image\(s\) of 64 x 64 .*an '
        r'output is off by .* --batch N --size H W'
    )
    with pytest.raises(ValueError, match=message):
        check_shapes(model, network, metadata, (64, 64), Path('x.onnx'))


def test_a_constant_height():
    network, model = traced('size')
    metadata = dict(input=SPEC, outputs=['out'])
    with pytest.raises(ValueError, match=r'wrong for 1 image\(s\) of 32 x 32'):
        check_shapes(model, network, metadata, (64, 64), Path('x.onnx'))


def test_difference_by_hand():
    wanted = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    got = wanted + torch.tensor([0.0, 0.5, 0.0, -0.25])
    assert difference(wanted, got) == 0.5
    # The unit of a constant is a thousandth of its size.
    flat = torch.full((4,), -2.0)
    assert difference(flat, flat + 1e-3) == pytest.approx(0.5, rel=1e-3)
    assert difference(torch.zeros(2), torch.zeros(2)) == 0
    assert difference(torch.zeros(2), torch.zeros(3)) == float('inf')
    nan = difference(wanted, wanted * float('nan'))
    assert not nan <= 1
