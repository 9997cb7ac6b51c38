"""Chained poolings give the same maxima."""

import numpy as np
import pytest

from mmgor.deploy.export.graph.poolings import chain_poolings

parser = pytest.importorskip('onnx.parser')
ir = pytest.importorskip('onnx_ir')
ort = pytest.importorskip('onnxruntime')


def pool(name, width, source='x', **attributes):
    given = dict(kernel_shape=[width] * 2, pads=[width // 2] * 4)
    text = ', '.join(f'{k} = {v}' for k, v in {**given, **attributes}.items())
    return f'{name} = MaxPool <{text}> ({source})'


def model_of(*lines, outputs):
    ends = ', '.join(f'float[N, C, H, W] {name}' for name in outputs)
    return ir.from_proto(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[1, 2, 11, 7] x) => ({ends})
        {{ {' '.join(lines)} }}
        """)
    )


def run(model, images):
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content).run(None, {'x': images})


def test_the_maxima_stay_the_same():
    # Larger ones come first: they have to be moved behind smaller ones.
    lines = [pool('c', 13), pool('b', 9), pool('a', 5)]
    model = model_of(*lines, outputs='abc')
    images = np.random.default_rng(0).standard_normal((1, 2, 11, 7))
    images = images.astype(np.float32) - 2  # padding of 0 would be seen
    expected = run(model, images)
    assert chain_poolings(model.graph) == 2
    widths = [n.attributes['kernel_shape'].as_ints() for n in model.graph]
    assert [list(width) for width in widths] == [[5, 5]] * 3
    for have, want in zip(run(model, images), expected, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(
    'other',
    [
        pool('b', 9, strides=[2, 2]),
        pool('b', 9, pads=[0] * 4),
        pool('b', 9, dilations=[2, 2], pads=[8] * 4),
        pool('b', 9, kernel_shape=[9, 1], pads=[4, 0, 4, 0]),
        pool('b', 5),
        pool('b', 9, source='a'),
    ],
)
def test_others_stay_as_they_are(other):
    model = model_of(pool('a', 5), other, outputs='ab')
    assert chain_poolings(model.graph) == 0


def test_a_pooling_between_integers_reads_what_is_rounded():
    def rounding(name, source):
        return (
            f'{name}_q = QuantizeLinear({source}, s, z) '
            f'{name} = DequantizeLinear({name}_q, s, z)'
        )

    text = f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[1, 2, 11, 7] x) => (float[N, C, H, W] b, float[M] p9)
        <float s = {{0.5}}, uint8 z = {{0}}>
        {{
            {rounding('a', 'x')}
            {pool('p5', 5, 'a')}
            {rounding('b', 'p5')}
            {pool('p9', 9, 'a')}
        }}
    """
    model = ir.from_proto(parser.parse_model(text))
    assert chain_poolings(model.graph) == 1
    (last,) = (n for n in model.graph if n.outputs[0].name == 'p9')
    assert last.inputs[0].name == 'b'
