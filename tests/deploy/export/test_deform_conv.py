"""Deformable convolutions: the files compute what mmcv computes."""

import json
from pathlib import Path

import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from torch import nn

from mmgor.deploy.export import deform_conv, onnx_writer
from mmgor.deploy.export.deform_conv import traceable_deform_convs
from mmgor.deploy.export.job import Job
from mmgor.deploy.export.saving import read_as_openvino
from mmgor.deploy.export.shape_check import check_shapes

SIDES = 9, 11


class Sampling(nn.Module):
    """Every argument of mmcv's layers and functions at least once.

    All positions move by up to two pixels, some of them out of the image.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.plain = DeformConv2dPack(8, 6, 3, padding=1, deform_groups=2)
        self.grouped = ModulatedDeformConv2dPack(
            8, 6, 3, stride=2, padding=2, dilation=2, groups=2
        )
        self.tall = DeformConv2d(8, 4, (3, 1), (2, 1), (1, 0), (1, 2), 4)
        self.no_bias = ModulatedDeformConv2d(8, 4, 3, padding=1, bias=False)
        for name, parameter in self.named_parameters():
            if 'offset' in name or 'bias' in name:
                nn.init.normal_(parameter)

    def forward(self, x):
        move = 2 * x[:, :1].sin()
        c = x.shape[1]
        tall = self.tall(x, move[..., ::2, :].repeat(1, 6, 1, 1))
        mask = x[:, 1:2].sigmoid().repeat(1, 9, 1, 1)
        moves = move.repeat(1, 18, 1, 1)
        # As TOOD's head does.
        ones, offsets = x.new_ones(c, 1, 1, 1), move.repeat(1, 2 * c, 1, 1)
        each = deform_conv2d(x, offsets, ones, 1, 0, 1, c, c)
        again = modulated_deform_conv2d(
            x, moves, mask, self.no_bias.weight, self.grouped.bias[:4], 1, 1
        )
        # As DyHead does: the coarser map has fewer pixels than its offsets.
        coarse = self.no_bias(x[..., ::2, ::2].contiguous(), moves, mask)
        outs = self.plain(x), self.grouped(x), tall, each, again, coarse
        return [*outs, self.no_bias(x, moves, mask)]


NAMES = ['plain', 'grouped', 'tall', 'each', 'again', 'coarse', 'no_bias']


@pytest.fixture(scope='module')
def sampling():
    """A network, images for it, its outputs and its ONNX file's content."""
    ir = pytest.importorskip('onnx_ir')
    pytest.importorskip('onnxscript')
    network = Sampling().eval()
    images = torch.randn(2, 8, *SIDES)
    with torch.no_grad():
        wanted = network(images)
    metadata = dict(outputs=NAMES, input=dict(batch=len(images)))
    job = Job(network, images, metadata, Path('net.onnx'), None, False)
    model = onnx_writer._trace(job).model
    return images, wanted, ir.to_proto(model)


def test_onnx_runtime(sampling):
    images, wanted, model = sampling
    kinds = [n.op_type for n in model.graph.node]
    assert kinds.count('DeformConv') == len(NAMES)
    ort = pytest.importorskip('onnxruntime')
    session = ort.InferenceSession(model.SerializeToString())
    for have, want in zip(
        session.run(None, {'images': images.numpy()}), wanted, strict=True
    ):
        torch.testing.assert_close(torch.from_numpy(have), want)


def test_openvino(sampling, tmp_path):
    images, wanted, model = sampling
    openvino = pytest.importorskip('openvino')
    (tmp_path / 'net.onnx').write_bytes(model.SerializeToString())
    openvino.save_model(
        read_as_openvino(tmp_path / 'net.onnx'),
        tmp_path / 'net.xml',
        compress_to_fp16=False,
    )
    # The file itself needs no extension.
    compiled = openvino.Core().compile_model(
        tmp_path / 'net.xml', 'CPU', dict(INFERENCE_PRECISION_HINT='f32')
    )
    got = compiled([images.numpy()])
    for name, want in zip(NAMES, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(got[name]), want)


@pytest.mark.parametrize('masked', [False, True])
def test_operator(masked):
    """mmcv's function, and shapes as torch's exporter computes them."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, *SIDES), torch.randn(6, 2, 3, 3)
    offset = 3 * torch.randn(2, 36, 5, 6)
    mask = torch.rand(2, 18, 5, 6) if masked else None
    bias = torch.randn(6) if masked else None
    geometry = [2, 2], [1, 1], [1, 1], 2, 2
    arguments = (x, offset, mask, weight, bias, *geometry)
    torch.library.opcheck(deform_conv.deform_conv2d, arguments)
    want = (
        modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
        if masked
        else deform_conv2d(x, offset, weight, *geometry)
    )
    torch.testing.assert_close(deform_conv.deform_conv2d(*arguments), want)


def test_the_operator_computes_in_the_block_too():
    torch.manual_seed(0)
    layers = Sampling().eval()
    x = torch.randn(1, 8, *SIDES)
    with torch.no_grad():
        wanted = layers(x)
        with traceable_deform_convs():
            got = layers(x)
    for have, want in zip(got, wanted, strict=True):
        torch.testing.assert_close(have, want)


def test_mmcv_is_as_before_after_the_block():
    layer = DeformConv2dPack(2, 2, 3, padding=1)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    with pytest.raises(KeyError), traceable_deform_convs():
        raise KeyError
    layer(x).sum().backward()
    assert x.grad.any() and layer.weight.grad is not None


class Pyramid(nn.Module):
    """Its last map has 1 x 1 pixels for images of 32 x 32; mmcv pads it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.AvgPool2d(32)
        self.layer = DeformConv2d(2, 3, 3, padding=1)

    def forward(self, images):
        x = self.down(images)
        return [self.layer(x, x[:, :1].sin().repeat(1, 18, 1, 1))]


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_maps_smaller_than_the_kernel(suffix):
    for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    network = Pyramid().eval()
    spec = dict(
        name='images',
        batch=None,
        channels=2,
        height=None,
        width=None,
        divisor=32,
    )
    metadata = json.loads(json.dumps(dict(input=spec, outputs=['out'])))
    path, images = Path(f'x{suffix}'), torch.zeros(2, 2, 64, 64)
    job = Job(network, images, metadata, path, None, False)
    model = onnx_writer._trace(job).model
    check_shapes(model, network, metadata, (64, 64), path)
