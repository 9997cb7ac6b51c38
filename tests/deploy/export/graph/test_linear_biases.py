"""Linear layers in front of something that is not rounded."""

from collections import Counter

import numpy as np
import pytest

from mmgor.deploy.export.graph.linear_biases import keep_biases_apart
from tests.support.onnx_files import run_onnx

onnx = pytest.importorskip('onnx')
parser = pytest.importorskip('onnx.parser')
ir = pytest.importorskip('onnx_ir')
ort = pytest.importorskip('onnxruntime')

ROUNDING = (
    'r = QuantizeLinear (s, step, zero) y = DequantizeLinear (r, step, zero)'
)


def model_of(after, shape='1, 3, 2', source='d'):
    """A linear layer of two inputs and outputs, and what reads its sum s."""
    return parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[{shape}] x) => (float[N] y)
        <float step = {{0.5}}, uint8 zero = {{128}},
         int8[2, 2] w = {{1, -127, 127, 4}}, float[2] ws = {{0.1, 0.2}},
         int8[2] wz = {{0, 0}}, float[2] b = {{1.0, 2.0}},
         int64[2] flat = {{3, 2}}, float[{shape}] p>
        {{ q = QuantizeLinear (x, step, zero)
           d = DequantizeLinear (q, step, zero)
           v = DequantizeLinear <axis = 1> (w, ws, wz)
           p = MatMul ({source}, v)
           s = Add (p, b)
           {after} }}
    """)


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def kinds(model, folder):
    """Operators after ONNX Runtime's default optimization."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / 'optimized.onnx')
    ort.InferenceSession(model.SerializeToString(), options)
    file = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in file.graph.node)


def test_the_product_is_computed_in_integers(tmp_path):
    model = model_of('y = Tanh (s)')
    assert kinds(model, tmp_path)['Gemm'] == 1  # in float
    changed = ir.from_proto(model)
    assert keep_biases_apart(changed.graph) == 1
    changed = ir.to_proto(changed)
    assert kinds(changed, tmp_path)['MatMulIntegerToFloat'] == 1
    x = images(1, 3, 2)
    (want,), (got,) = run_onnx(model, x), run_onnx(changed, x)
    np.testing.assert_array_equal(got, want)


def test_layers_may_share_a_bias():
    model = ir.from_proto(model_of('t = Add (p, b) y = Sub (s, t)'))
    assert keep_biases_apart(model.graph) == 2
    lifted = [n.inputs[1] for n in model.graph if n.op_type == 'Add']
    assert lifted[0] is lifted[1]


@pytest.mark.parametrize(
    'model',
    [
        model_of(ROUNDING),
        # ONNX Runtime moves the rounding in front of the Reshape.
        model_of(f'm = Reshape (s, flat) {ROUNDING.replace("(s", "(m")}'),
        # A bias of three axes would give the sum another shape.
        model_of('y = Tanh (s)', shape='3, 2'),
        # The layer is not quantized.
        model_of('y = Tanh (s)', source='x'),
    ],
    ids=['rounded', 'rounded later', 'two axes', 'float'],
)
def test_others_stay_as_they_are(model):
    assert keep_biases_apart(ir.from_proto(model).graph) == 0
