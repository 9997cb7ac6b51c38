"""Every target's types compute what the frozen network computes."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from mmgor.deploy.export.graph.stored_types import store_for_target
from mmgor.deploy.export.onnx_ops import translations
from mmgor.targets import TARGETS
from tests.support.onnx_files import run_onnx
from tests.support.rounded import BLOCKS, rounded

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')
ir = pytest.importorskip('onnx_ir')
passes = pytest.importorskip('onnx_ir.passes.common')
ONNX_TARGETS = [n for n, t in TARGETS.items() if '.onnx' in t.suffixes]


@cache
def trace(names, opset, limited):
    """A network of 4 bits, images for it, and its trace as ONNX."""
    network, images = rounded(*names, bits=4)
    if limited:
        network.limit_unsigned(127)
    program = torch.onnx.export(
        network,
        (images,),
        input_names=['images'],
        opset_version=opset,
        dynamo=True,
        custom_translation_table=translations(opset),
        verbose=False,
    )
    return network, images, program.model_proto


def stored(name, *names):
    """A network, images for it, and its graph in the types of a target."""
    target = TARGETS[name]
    network, images, proto = trace(
        names, target.opset, target.symmetric_inputs
    )
    model = ir.from_proto(proto)
    store_for_target(model.graph, target)
    passes.RemoveUnusedNodesPass()(model)
    return network, images, ir.to_proto(model)


def arrays(model):
    return {
        i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer
    }


def zero_points(model):
    """The zero point of each QuantizeLinear, in order."""
    values = arrays(model)
    return [
        values[node.input[2]]
        for node in model.graph.node
        if node.op_type == 'QuantizeLinear'
    ]


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize('name', ONNX_TARGETS)
def test_the_values_are_those_of_the_frozen_network(name):
    network, images, model = stored(name, *BLOCKS)
    with torch.no_grad():
        expected = network(images)
    # Node by node no value lies so near to a boundary that it flips.
    (got,) = run_onnx(model, images)
    torch.testing.assert_close(got, expected)


def test_tensorrt_has_int8_and_float_clips():
    *_, model = stored('tensorrt', 'residual')
    found = zero_points(model)
    assert {zero.dtype.name for zero in found} == {'int8'}
    assert not np.any(found)
    # The outputs of stem and first layer have 4 bits, that of the block 7:
    # their Clips do the work of ReLUs. Image and sum have 8 bits.
    assert kinds(model)['Clip'] == 3
    assert kinds(model)['Relu'] == 0


@pytest.mark.parametrize(
    ('name', 'dtype', 'top', 'signed'),
    [('rknn', 'int8', 127, 0), ('qnn', 'uint8', 255, 128)],
)
def test_rknn_and_qnn_saturate_behind_a_relu(name, dtype, top, signed):
    *_, model = stored(name, 'residual')
    found = [(zero.dtype.name, int(zero)) for zero in zero_points(model)]
    # Image, stem (4 bits), inner layer (4 bits), sum (8 bits), output (8).
    zeros = [signed, top - 15, top - 15, signed, top - 255]
    assert found == [(dtype, zero) for zero in zeros]
    assert kinds(model)['Clip'] == 0


def test_x86_has_uint8_and_clips_integers():
    *_, model = stored('x86', 'residual')
    found = [(zero.dtype.name, int(zero)) for zero in zero_points(model)]
    assert found == [('uint8', zero) for zero in (128, 0, 0, 128, 0)]
    values = arrays(model)
    bounds = [
        [values[name].item() for name in node.input[1:]]
        for node in model.graph.node
        if node.op_type == 'Clip'
    ]
    assert bounds == [[0, 15], [0, 15]]


def test_x86_saturates_behind_a_sigmoid():
    text = """
        <ir_version: 10, opset_import: ["": 21]>
        net (float[4] x) => (float[4] y)
        <float step = {0.0078125}, uint8 low = {0}, uint8 high = {127}>
        { s = Sigmoid (x) q = QuantizeLinear (s, step, low)
          c = Clip (q, low, high) y = DequantizeLinear (c, step, low) }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    store_for_target(model.graph, TARGETS['x86'])
    proto = ir.to_proto(model)
    assert [int(zero) for zero in zero_points(proto)] == [128]
    assert kinds(proto)['Clip'] == 0
    x = np.array([-9, 0, 1, 9], np.float32)
    session = ort.InferenceSession(proto.SerializeToString())
    (y,) = session.run(None, {'x': x})
    # round(sigmoid(1) * 128) = 94; 127 is the largest integer.
    np.testing.assert_array_equal(y * 128, [0, 64, 94, 127])


def test_a_second_rounding_to_the_same_grid_has_no_clip():
    *_, model = stored('x86', *BLOCKS)
    node = next(n for n in model.graph.node if n.op_type == 'Concat')
    for kind in ('QuantizeLinear', 'DequantizeLinear'):
        (node,) = (n for n in model.graph.node if node.output[0] in n.input)
        assert node.op_type == kind


@pytest.mark.parametrize('name', ONNX_TARGETS)
def test_weights_have_zero_points(name):
    *_, model = stored(name, 'residual')
    values = arrays(model)
    weights = [
        node
        for node in model.graph.node
        if node.op_type == 'DequantizeLinear' and node.input[0] in values
    ]
    assert len(weights) == 3
    for node in weights:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8
        assert zero.shape == values[node.input[1]].shape
        assert not zero.any()
