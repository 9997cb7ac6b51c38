"""Roundings inside of SiLU are left out where nothing else reads them."""

import numpy as np
import pytest

from mmgor.deploy.export.graph.silu import unround_silu

parser = pytest.importorskip('onnx.parser')
ir = pytest.importorskip('onnx_ir')
ort = pytest.importorskip('onnxruntime')


def rounded(source, step):
    return (
        f'{source}_q = QuantizeLinear ({source}, {step}, zero) '
        f'{source}_c = Clip ({source}_q, low, high) '
        f'{source}_r = DequantizeLinear ({source}_c, {step}, zero) '
    )


def model_of(*more, layer='Conv (x, weight)', ends='y'):
    outputs = ', '.join(f'float[N, C, H, W] {end}' for end in ends.split())
    return ir.from_proto(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[1, 1, 4, 4] x) => ({outputs})
        <float step = {{0.5}}, float fine = {{0.01}}, int8 zero = {{0}},
         int8 low = {{-100}}, int8 high = {{100}},
         float[1, 1, 1, 1] weight = {{3}}>
        {{ pre = {layer}
           {rounded('pre', 'step')} sig = Sigmoid (pre_r)
           {rounded('sig', 'fine')} out = Mul (pre_r, sig_r)
           {rounded('out', 'step')} y = Identity (out_r)
           {' '.join(more)} }}
        """)
    )


def test_only_the_result_is_rounded():
    model = model_of()
    assert unround_silu(model.graph) == 1
    images = np.random.default_rng(0).standard_normal((1, 1, 4, 4))
    images = images.astype(np.float32)
    content = ir.to_proto(model).SerializeToString()
    (y,) = ort.InferenceSession(content).run(None, {'x': images})
    silu = 3 * images / (1 + np.exp(-3 * images))
    np.testing.assert_allclose(y, np.rint(silu / 0.5) * 0.5, atol=1e-6)
    left = [n.op_type for n in model.graph if n.op_type == 'QuantizeLinear']
    assert len(left) == 1


@pytest.mark.parametrize(
    'other',
    [
        # Something else reads the rounded input, or the rounded sigmoid.
        model_of('z = Relu (pre_r)', ends='y z'),
        model_of('z = Relu (sig_r)', ends='y z'),
        # Not behind a convolution, with which it could be fused.
        model_of(layer='Relu (x)'),
    ],
)
def test_others_stay_as_they_are(other):
    count = len(other.graph)
    assert unround_silu(other.graph) == 0
    assert len(other.graph) == count
