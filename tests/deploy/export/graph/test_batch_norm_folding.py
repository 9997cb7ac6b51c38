import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmgor.deploy.export.graph.batch_norm_folding import (
    fold_batch_norm,
    fold_norms,
)
from mmgor.deploy.export.graph.int4_weights import use_int4_weights
from mmgor.deploy.export.graph.stored_types import add_weight_zero_points
from tests.support.onnx_files import run_onnx

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
ir = pytest.importorskip('onnx_ir')

# A convolution that two levels share, with one batch norm per level; a grouped
# transposed convolution whose weight is transposed; a batch norm that must
# stay because its input is used twice; and deformable convolutions.
TEXT = """
<ir_version: 10, opset_import: ["": 21]>
net (float[1, 2, 5, 5] x) => (float[1, 3, 5, 5] a, float[1, 3, 5, 5] b,
                              float[1, 4, 10, 10] c, float[1, 3, 5, 5] d,
                              float[1, 3, 5, 5] e, float[1, 3, 5, 5] f) {
  w = DequantizeLinear <axis: int = 0> (q, s)
  y1 = Conv <pads = [1, 1, 1, 1]> (x, w)
  a = BatchNormalization <epsilon = 0.1> (y1, g1, b1, m1, v1)
  y2 = Conv <pads = [1, 1, 1, 1]> (x, w, bias)
  b = BatchNormalization <epsilon = 0.1> (y2, g2, b2, m2, v2)
  u = DequantizeLinear <axis: int = 0> (qt, st)
  t = Transpose <perm = [1, 0, 2, 3]> (u)
  y3 = ConvTranspose <strides = [2, 2]> (x, t)
  c = BatchNormalization <epsilon = 0.1> (y3, g3, b3, m3, v3)
  y4 = Conv <pads = [1, 1, 1, 1]> (x, w)
  n = BatchNormalization <epsilon = 0.1> (y4, g1, b1, m1, v1)
  d = Add (y4, n)
  y5 = DeformConv <pads = [1, 1, 1, 1]> (x, w, moves)
  e = BatchNormalization <epsilon = 0.1> (y5, g1, b1, m1, v1)
  y6 = DeformConv <pads = [1, 1, 1, 1]> (x, w, moves, bias, mask)
  f = BatchNormalization <epsilon = 0.1> (y6, g2, b2, m2, v2)
}
"""


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)

    def real(*shape, low=-1.0):
        return rng.uniform(low, 1, shape).astype(np.float32)

    def integers(*shape):
        return rng.integers(-7, 8, shape).astype(np.int8)

    found = dict(q=integers(3, 2, 3, 3), s=real(3, low=0.1), bias=real(3))
    found |= dict(qt=integers(4, 2, 2, 2), st=real(4, low=0.1))
    for level, channels in ((1, 3), (2, 3), (3, 4)):
        for name in 'gbm':
            found[f'{name}{level}'] = real(channels)
        found[f'v{level}'] = real(channels, low=0.2)
    found['g2'][1] = 0.0
    found |= dict(moves=real(1, 18, 5, 5), mask=real(1, 9, 5, 5))
    return found


def build(arrays):
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(v, k) for k, v in arrays.items()
    )
    return model


def test_folded_graph_computes_the_same(arrays):
    model = build(arrays)
    x = np.random.default_rng(1).normal(size=(1, 2, 5, 5)).astype(np.float32)
    before = run_onnx(model, x)
    folded = ir.from_proto(model)
    assert fold_norms(folded.graph) == 5
    norms = [n for n in folded.graph if n.op_type == 'BatchNormalization']
    assert len(norms) == 1  # the addition uses y4 too
    after = run_onnx(ir.to_proto(folded), x)
    for old, new in zip(before, after):
        np.testing.assert_allclose(new, old, atol=2e-5)


def test_each_level_has_its_own_weights(arrays):
    folded = ir.from_proto(build(arrays))
    fold_norms(folded.graph)
    weights = {
        node.outputs[0].name: node.inputs[1].producer().inputs[0]
        for node in folded.graph
        if node.op_type == 'Conv'
    }
    first, second, shared = (
        value.const_value.numpy() for value in weights.values()
    )
    np.testing.assert_array_equal(shared, arrays['q'])
    sign = np.sign(arrays['g1']).astype(np.int8).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(first, arrays['q'] * sign)
    assert not second[1].any()  # gamma 0


@pytest.mark.parametrize('per_channel', [True, False])
def test_fold_against_torch(arrays, per_channel):
    scale = arrays['s'] if per_channel else arrays['s'][0]
    norm = tuple(arrays[f'{name}2'] for name in 'gbmv')
    integers, folded, bias = fold_batch_norm(
        arrays['q'], scale, arrays['bias'], norm, 0.1
    )
    assert integers.dtype == np.int8 and (folded > 0).all()
    x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.from_numpy(arrays['q'] * np.reshape(scale, (-1, 1, 1, 1)))
    gamma, beta, mean, variance = map(torch.from_numpy, norm)
    expected = F.batch_norm(
        F.conv2d(x, weight, torch.from_numpy(arrays['bias'])),
        mean,
        variance,
        gamma,
        beta,
        eps=0.1,
    )
    weight = torch.from_numpy(integers * folded.reshape(-1, 1, 1, 1))
    got = F.conv2d(x, weight, torch.from_numpy(bias))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_bias_fits_into_32_bits():
    """A channel that training has switched off keeps its bias."""
    gamma = np.array([0.0, 1e-9, 1e-4, -1.0], np.float32)
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    integers, scale, bias = fold_batch_norm(
        np.full((4, 1), 100, np.int8),
        ones * 0.5,
        zeros,
        (gamma, np.array([-0.75, 2.0, 2.0, 0.0], np.float32), zeros, ones),
        0.0,
    )
    np.testing.assert_array_equal(bias, [-0.75, 2.0, 2.0, 0.0])
    # 0.5e-9 is below 2 / 2**18; 0.5e-4 is above.
    expected = [0.75 / 2**18, 2 / 2**18, 0.5e-4, 0.5]
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    np.testing.assert_array_equal(integers[:, 0], [0, 0, 100, -100])
    for step in (1e-3, 10.0):  # of the input
        stored = np.rint(bias / (step * scale))
        assert np.abs(stored).max() < 2**31
        np.testing.assert_allclose(stored * step * scale, bias, rtol=1e-4)


def test_fold_by_hand():
    integers, scale, bias = fold_batch_norm(
        np.array([[3], [-2]], np.int8),
        np.array([0.5, 0.25], np.float32),
        np.array([1.0, 0.0], np.float32),
        tuple(
            np.array(v, np.float32)
            for v in ([4.0, -2.0], [0.5, 1.0], [3.0, 5.0], [3.0, 0.0])
        ),
        1.0,
    )
    assert integers.tolist() == [[3], [2]]
    assert scale.tolist() == [1.0, 0.5]  # gains 4 / 2 and -2 / 1
    assert bias.tolist() == [-3.5, 11.0]


def test_only_weights_that_fit_become_int4(arrays):
    arrays['q'][0, 0, 0, 0] = 8  # too large for int4
    model = ir.from_proto(build(arrays))
    assert use_int4_weights(model.graph) == 1
    dtypes = {
        node.inputs[0].name: node.inputs[0].dtype
        for node in model.graph
        if node.op_type == 'DequantizeLinear'
    }
    assert dtypes == {'q': ir.DataType.INT8, 'qt.int4': ir.DataType.INT4}
    x = np.ones((1, 2, 5, 5), np.float32)
    for old, new in zip(
        run_onnx(build(arrays), x), run_onnx(ir.to_proto(model), x)
    ):
        np.testing.assert_array_equal(old, new)


def test_zero_points_become_int4_with_their_weights(arrays):
    model = ir.from_proto(build(arrays))
    add_weight_zero_points(model.graph)
    assert use_int4_weights(model.graph) == 2
    dtypes = {
        value.dtype
        for node in model.graph
        if node.op_type == 'DequantizeLinear'
        for value in (node.inputs[0], node.inputs[2])
    }
    assert dtypes == {ir.DataType.INT4}
    x = np.ones((1, 2, 5, 5), np.float32)
    for old, new in zip(
        run_onnx(build(arrays), x), run_onnx(ir.to_proto(model), x)
    ):
        np.testing.assert_array_equal(old, new)
