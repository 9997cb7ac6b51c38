"""Which target a file is for, and what it refuses."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmgor.deploy.export.target_choice import check_grids, choose_target
from mmgor.quantization import (
    FixedQuantizer,
    GivenQuantizer,
    LSQPlusQuantizer,
    LSQQuantizer,
)
from mmgor.quantization.tensors.plan import Plan
from mmgor.targets import TARGETS

ONNX = Path('student.onnx')


def config(**quant):
    """A config whose parts have a ``quant``; the neck may have another."""
    neck = quant.pop('neck', quant)
    parts = dict(backbone=quant, neck=neck, bbox_head=quant)
    model = {name: dict(type='X', quant=q) for name, q in parts.items()}
    return Config(dict(model=dict(type='RetinaNet', **model)))


@pytest.mark.parametrize(
    ('named', 'quant', 'path', 'expected'),
    [
        (None, {}, ONNX, None),
        ('rknn', {}, ONNX, 'rknn'),
        (None, dict(target='tensorrt'), ONNX, 'tensorrt'),
        ('qnn', dict(target='x86'), ONNX, 'qnn'),
        # The files that ONNX Runtime and OpenVINO read.
        (None, dict(target='litert'), ONNX, 'x86'),
        (None, dict(target='tensorrt'), Path('a.xml'), 'x86'),
        (None, dict(tensors='all'), ONNX, 'x86'),
        (None, dict(), Path('a.tflite'), 'litert'),
        (None, dict(target='qnn'), Path('a.tflite'), 'litert'),
        (None, dict(target='ethos-u'), Path('a.tflite'), 'ethos-u'),
        (None, dict(tensors='inputs'), ONNX, None),
        (None, dict(target='litert'), Path('a.tflite'), 'litert'),
    ],
)
def test_the_target(named, quant, path, expected):
    assert choose_target(named, config(**quant), path, False) == expected


def test_parts_with_different_targets():
    cfg = config(target='x86', neck=dict(target='rknn'))
    with pytest.raises(ValueError, match=r"\['rknn', 'x86'\]; expected one"):
        choose_target(None, cfg, ONNX, False)
    assert choose_target('rknn', cfg, ONNX, False) == 'rknn'


def test_a_file_that_the_target_does_not_read():
    with pytest.raises(
        ValueError, match=r"'litert' .*\.tflite, .*--out student\.tflite, or "
    ):
        choose_target('litert', config(), ONNX, False)
    with pytest.raises(ValueError, match=r"'rknn' .*\.onnx, got a\.xml"):
        choose_target('rknn', config(), Path('a.xml'), False)


def test_an_unknown_target():
    with pytest.raises(ValueError, match="did you mean 'tensorrt'"):
        choose_target('tensort', config(), ONNX, False)


@pytest.mark.parametrize('name', TARGETS)
def test_int4(name):
    path = Path('student').with_suffix(TARGETS[name].suffixes[0])
    if name in ('x86', 'litert'):
        assert choose_target(name, config(), path, True) == name
        return
    with pytest.raises(ValueError, match=f'reads int4, got {name!r}.*--int4'):
        choose_target(name, config(), path, True)


def layers(**quantizers):
    """A model with one layer per quantizer."""
    model = nn.Module()
    for name, quantizer in quantizers.items():
        layer = nn.Module()
        layer.input_quantizer = quantizer
        layer.weight_quantizer = calibrated(
            LSQQuantizer(8, 4, per_channel=True, for_weight=True), True
        )
        model.add_module(name, layer)
    return model


def calibrated(quantizer, signed, offset=0.0):
    count = quantizer.num_scales
    quantizer.choose_range(signed)
    ones = torch.ones(count)
    quantizer.set_ranges(0.1 * ones, offset * ones, -ones, ones)
    return quantizer


def test_ranges_that_every_target_can_have():
    model = layers(
        a=calibrated(LSQQuantizer(8), True),
        b=calibrated(LSQQuantizer(7), False),
        c=GivenQuantizer(8),
        d=FixedQuantizer(symmetric=True),
    )
    for name in ('x86', 'tensorrt', 'qnn', 'rknn'):
        check_grids(model, name)


def test_ranges_of_unsigned_8_bits():
    model = layers(a=calibrated(LSQQuantizer(8), False), b=FixedQuantizer())
    check_grids(model, 'rknn')
    with pytest.raises(
        ValueError,
        match=r'of 8 bits is refused \(at most 7 fit\): a, b\. Expected .*'
        r"quant=dict\(target='tensorrt'\)",
    ):
        check_grids(model, 'tensorrt')


def test_offsets():
    model = layers(a=calibrated(LSQPlusQuantizer(8), True, offset=1.0))
    check_grids(model, 'qnn')
    with pytest.raises(ValueError, match=r'an offset .* is refused: a'):
        check_grids(model, 'tensorrt')


def test_sums_of_ncnn_are_float():
    model = layers(a=calibrated(LSQQuantizer(7), False))
    check_grids(model, 'ncnn')
    model.tensor_quantizer = nn.ModuleDict(
        dict(add=calibrated(LSQQuantizer(7), False))
    )
    with pytest.raises(ValueError, match=r"with tensors='all'\. Expected"):
        check_grids(model, 'ncnn')
    check_grids(model, 'tensorrt')


def test_scales_per_channel():
    model = layers(a=calibrated(LSQQuantizer(8, 3, channels=3), True))
    with pytest.raises(ValueError, match=r'a scale per channel .* refused: a'):
        check_grids(model, 'x86')


def test_activations_without_a_grid():
    model = layers(a=calibrated(LSQQuantizer(7), False))
    model.a.rounding_plan = Plan(fused=['activate'])
    check_grids(model, 'tensorrt')
    message = r"layer before: a\.activate\. .*target='litert'"
    with pytest.raises(ValueError, match=message):
        check_grids(model, 'litert')
