"""Layers of mmcv's classes: their export is exact, or refused."""

import pytest
import torch
from mmcv.ops import MaskedConv2d
from mmengine.config import Config
from torch import nn

from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.export.network import Network
from mmgor.quantization import QuantPolicy, calibrate, quantized_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.layers.variants import (
    QuantConv2dAdaptivePadding,
    QuantConvAWS2d,
    QuantDeformConv2dPack,
    QuantModulatedDeformConv2dPack,
)
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg
from tests.support.onnx_files import run_onnx

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
SIZE = (64, 64)


# Name in conv_cfg -> class.
LAYERS = dict(
    Conv2dAdaptivePadding=QuantConv2dAdaptivePadding,
    ConvAWS=QuantConvAWS2d,
    DCN=QuantDeformConv2dPack,
    DCNv2=QuantModulatedDeformConv2dPack,
)


@pytest.mark.parametrize('kind', LAYERS)
def test_the_file_computes_the_same(kind, tmp_path):
    """Node by node in ONNX Runtime; here no quantization step flips."""
    torch.manual_seed(0)
    cfg = quantized_cfg(w_bits=4, a_bits=4)
    cfg.backbone.update(num_stages=1, out_indices=(0,))
    cfg.backbone.update(strides=(1,), dilations=(1,))
    cfg.backbone.update(conv_cfg=dict(type=kind))
    cfg.neck.update(in_channels=[8], start_level=0, num_outs=1)
    cfg.bbox_head.anchor_generator.strides = [4]
    model = MODELS.build(cfg)
    for name, parameter in model.named_parameters():
        if 'conv_offset' in name:
            nn.init.normal_(parameter, std=0.1)
    calibrate(model, [torch.randn(2, 3, *SIZE)], model)
    model.eval()
    found = [type(layer) for layer in quantized_layers(model).values()]
    assert LAYERS[kind] in found
    path = tmp_path / 'net.onnx'
    config = Config(dict(model=cfg))
    done = export_detector(
        model, config, path, SIZE, ('a', 'b', 'c'), int4=True
    )
    assert done['folded'] == found.count(LAYERS[kind])
    images = torch.randn(1, 3, *SIZE)
    got = run_onnx(path, images)
    with torch.no_grad():
        scores, boxes = model(images)
    for have, want in zip(got, [*scores, *boxes]):
        torch.testing.assert_close(have, want)


def test_quantized_operators_of_mmcv_are_refused():
    model = nn.Module()
    model.backbone, model.bbox_head = nn.Identity(), nn.Module()
    model.bbox_head.lossless = nn.Sequential(MaskedConv2d(2, 2, 3))
    quantize_layers(model.bbox_head, QuantPolicy(), set())
    with pytest.raises(ValueError, match=r'bbox_head\.lossless\.0'):
        Network(model)
