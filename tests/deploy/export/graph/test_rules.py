"""A file that keeps all rules, and files that break one each."""

from dataclasses import replace

import numpy as np
import pytest

from mmgor.deploy.export.graph.rules import broken_rules, check_rules
from mmgor.targets import TARGETS

onnx = pytest.importorskip('onnx')
parser = pytest.importorskip('onnx.parser')

GOOD = """
<ir_version: 9, opset_import: ["": 19]>
net (float[1, 2, 4, 4] x) => (float[N] y)
<float s = {0.5}, int8 z = {0}, float low = {0.0}, float high = {7.5},
 int8[2, 2, 1, 1] w = {1, -127, 127, 0}, float[2] ws = {0.1, 0.2},
 int8[2] wz = {0, 0}, float[2] b = {1.0, 2.0}>
{
    c = Clip(x, low, high)
    q = QuantizeLinear(c, s, z)
    d = DequantizeLinear(q, s, z)
    v = DequantizeLinear <axis = 0> (w, ws, wz)
    y = Conv(d, v, b)
}
"""


def good(name='tensorrt'):
    """A graph that keeps the rules of a target."""
    model = parser.parse_model(GOOD)
    for node in model.graph.node:
        node.name = f'backbone.conv1/{node.op_type}'
    stored = TARGETS[name].stored
    if stored == 'uint8':
        put(model, 'z', np.array(128, np.uint8))
    return model


def put(model, name, array):
    """Replace a constant."""
    for constant in model.graph.initializer:
        if constant.name == name:
            constant.CopyFrom(onnx.numpy_helper.from_array(array, name))


def node(model, kind, number=0):
    return [n for n in model.graph.node if n.op_type == kind][number]


def drop_input(model, kind, number=0):
    node(model, kind, number).input.pop()


def to_integer_clip(model):
    for end, value in (('low', 0), ('high', 15)):
        put(model, end, np.array(value, np.int8))


@pytest.mark.parametrize('name', ['x86', 'tensorrt', 'qnn', 'rknn'])
def test_a_file_that_keeps_all_rules(name, tmp_path):
    onnx.save(good(name), tmp_path / 'good.onnx')
    check_rules(tmp_path / 'good.onnx', name, TARGETS[name])


BROKEN = {
    'opset 20, expected at most 19': lambda m: setattr(
        m.opset_import[0], 'version', 20
    ),
    "Conv in backbone.conv1 of domain 'custom'": lambda m: setattr(
        node(m, 'Conv'), 'domain', 'custom'
    ),
    'Unique in backbone.conv1, an operator': lambda m: setattr(
        node(m, 'Conv'), 'op_type', 'Unique'
    ),
    'QuantizeLinear in backbone.conv1 without a constant scale and zero': (
        lambda m: drop_input(m, 'QuantizeLinear')
    ),
    'QuantizeLinear in backbone.conv1 with uint8, expected': lambda m: put(
        m, 'z', np.array(0, np.uint8)
    ),
    'QuantizeLinear in backbone.conv1 with 2 scales, expected one': (
        lambda m: put(m, 's', np.array([0.5, 0.25], np.float32))
    ),
    'QuantizeLinear in backbone.conv1 with zero point 3, expected 0': (
        lambda m: put(m, 'z', np.array(3, np.int8))
    ),
    'QuantizeLinear in backbone.conv1 with a scale that is not': lambda m: put(
        m, 's', np.array(0, np.float32)
    ),
    'DequantizeLinear in backbone.conv1 of uint8 weights': lambda m: put(
        m, 'w', np.ones((2, 2, 1, 1), np.uint8)
    ),
    'weights outside of +-127': lambda m: put(
        m, 'w', np.full((2, 2, 1, 1), -128, np.int8)
    ),
    'of weights with a scale that is not above 0': lambda m: put(
        m, 'ws', np.array([0.1, 0], np.float32)
    ),
    'of weights without a zero point': lambda m: drop_input(
        m, 'DequantizeLinear', 1
    ),
    'of weights with a zero point, expected 0': lambda m: put(
        m, 'wz', np.array([0, 1], np.int8)
    ),
    'of weights that Relu reads': lambda m: setattr(
        node(m, 'Conv'), 'op_type', 'Relu'
    ),
    'Clip in backbone.conv1 of integers': to_integer_clip,
    'Conv in backbone.conv1 with a bias that is no float32': lambda m: put(
        m, 'b', np.array([1, 2], np.int32)
    ),
}


@pytest.mark.parametrize('message', BROKEN)
def test_a_file_that_breaks_a_rule_of_tensorrt(message, tmp_path):
    model = good()
    BROKEN[message](model)
    onnx.save(model, tmp_path / 'broken.onnx')
    with pytest.raises(ValueError, match='tensorrt could not read') as error:
        check_rules(tmp_path / 'broken.onnx', 'tensorrt', TARGETS['tensorrt'])
    assert message in str(error.value)
    assert '--target' in str(error.value)


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('qnn', lambda m: put(m, 'z', np.array(0, np.int8)), 'with int8'),
        ('x86', lambda m: put(m, 'z', np.array(0, np.int8)), 'with int8'),
        ('rknn', to_integer_clip, 'Clip in backbone.conv1 of integers'),
        (
            'rknn',
            lambda m: setattr(node(m, 'Conv'), 'op_type', 'DeformConv'),
            'DeformConv in backbone.conv1, an operator that it does not have',
        ),
        (
            'rknn',
            lambda m: drop_input(m, 'DequantizeLinear', 1),
            'of weights without a zero point',
        ),
    ],
)
def test_rules_of_other_targets(name, change, message):
    model = good(name)
    change(model)
    assert any(message in line for line in broken_rules(model, TARGETS[name]))


def test_x86_clips_integers_and_takes_int4():
    model = good('x86')
    to_integer_clip(model)
    put(model, 'w', np.full((2, 2, 1, 1), 7).astype(onnx_int4()))
    put(model, 'wz', np.zeros(2).astype(onnx_int4()))
    model.opset_import[0].version = 21
    assert not list(broken_rules(model, TARGETS['x86']))
    refused = replace(TARGETS['x86'], int4=False)
    (line,) = broken_rules(model, refused)
    assert 'of int4 weights' in line


def onnx_int4():
    return pytest.importorskip('ml_dtypes').int4
