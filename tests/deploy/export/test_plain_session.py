"""Files that ONNX Runtime opens and runs with its default options."""

from collections import Counter

import pytest
import torch
from mmengine.config import Config

from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.export.frozen import freeze
from mmgor.deploy.head_outputs import flatten
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
NAMES = ('a', 'b', 'c')
SIZE = (32, 32)


def swin(**quant):
    """A calibrated student with mmdet's Swin, and its config."""
    torch.manual_seed(0)
    cfg = quantized_cfg(w_bits=8, a_bits=8, **quant)
    cfg.backbone = dict(
        type='QuantBackbone',
        backbone='SwinTransformer',
        embed_dims=8,
        depths=[1],
        num_heads=[2],
        window_size=4,
        strides=(4,),
        out_indices=(0,),
        drop_path_rate=0.0,
        quant=cfg.backbone.quant,
    )
    cfg.neck.update(in_channels=[8], start_level=0, num_outs=1)
    cfg.bbox_head.anchor_generator.strides = [4]
    model = MODELS.build(cfg).eval()
    images = torch.randn(1, 3, *SIZE)
    calibrate(model, [images], lambda x: model(x, mode='tensor'))
    return model, Config(dict(model=cfg)), images


@pytest.mark.parametrize('tensors', ['inputs', 'all'])
def test_a_transformer(tensors, tmp_path):
    model, cfg, images = swin(tensors=tensors)
    path = tmp_path / 'student.onnx'
    export_detector(model, cfg, path, SIZE, NAMES)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
    session = onnxruntime.InferenceSession(path, options)
    got = session.run(None, dict(images=images.numpy()))
    with torch.no_grad():
        wanted = flatten(freeze(model)(images, mode='tensor'))
    for ours, theirs in zip(wanted, got, strict=True):
        # Integer kernels round biases: values may take the next step.
        assert (ours - torch.from_numpy(theirs)).norm() < 0.05 * ours.norm()
    # A block has four linear layers.
    file = onnx.load(options.optimized_model_filepath)
    kinds = Counter(node.op_type for node in file.graph.node)
    assert kinds['Gemm'] == 0
    assert kinds['QGemm'] + kinds['MatMulIntegerToFloat'] == 4
