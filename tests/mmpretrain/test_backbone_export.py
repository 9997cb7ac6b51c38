"""Students with backbones of MMPretrain and timm as ONNX files."""

import pytest
import torch

from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.export.frozen import freeze
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.backbones import student
from tests.support.onnx_files import run_onnx

SIZE = (64, 64)
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('name', ['ConvNeXt V2', 'timm EfficientNet-lite'])
def test_the_file_computes_the_same(name, tmp_path):
    """Node by node in ONNX Runtime, compared with the frozen network."""
    torch.manual_seed(0)
    cfg = student(name, w_bits=4, a_bits=4)
    model = MODELS.build(cfg.model)
    images = torch.randn(1, 3, *SIZE)
    calibrate(model, [images], model)
    path = tmp_path / 'net.onnx'
    export_detector(model, cfg, path, SIZE, ('a', 'b', 'c'))
    with torch.no_grad():
        want = [x for level in freeze(model)(images) for x in level]
    for a, b in zip(run_onnx(path, images), want, strict=True):
        # A value next to a rounding limit may take the other step.
        assert (a - b).norm() < 0.02 * b.norm()
