"""A Focus that is merged into a convolution gives the same sums."""

import numpy as np
import pytest

from mmgor.deploy.export.graph.focus import merge_focus, spread_kernel

parser = pytest.importorskip('onnx.parser')
ir = pytest.importorskip('onnx_ir')
ort = pytest.importorskip('onnxruntime')

ROUNDED = (
    '{name}_q = QuantizeLinear (x{source}, step, zero) '
    '{name} = DequantizeLinear ({name}_q, step, zero)'
)
# As mmdet joins them: rows and columns that the parts start with.
PHASES = [(0, 0), (1, 0), (0, 1), (1, 1)]


def model_of(phases=PHASES, end=2**31 - 1, cut='end, rows, two', **conv):
    attributes = dict(kernel_shape=[3, 3], pads=[1] * 4, group=1)
    attributes |= dict(strides=[1, 1], dilations=[1, 1]) | conv
    text = ', '.join(f'{k} = {v}' for k, v in attributes.items())
    parts = []
    for i, (row, column) in enumerate(phases):
        parts += [
            f'r{i} = Slice (x, at{row}, {cut})',
            f'xs{i} = Slice (r{i}, at{column}, end, columns, two)',
            # As a trace has it: the part is rounded again.
            ROUNDED.format(name=f'p{i}', source=f's{i}'),
        ]
    return ir.from_proto(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[1, 2, 8, 12] images) => (float[N, C, H, W] y)
        <float step = {{0.05}}, uint8 zero = {{0}},
         int64[1] at0 = {{0}}, int64[1] at1 = {{1}}, int64[1] two = {{2}},
         int64[1] rows = {{2}}, int64[1] columns = {{3}},
         int64[1] end = {{{end}}}, float[3] scale = {{0.1, 0.2, 0.3}},
         float[3] bias = {{1, 2, 3}}, int8[3, 8, 3, 3] weight = {{
         {', '.join(map(str, np.arange(216) % 19 - 9))} }}>
        {{ x_q = QuantizeLinear (images, step, zero)
           x = DequantizeLinear (x_q, step, zero)
           last = Sub (end, at0)
           {' '.join(parts)}
           xc = Concat <axis = 1> (p0, p1, p2, p3)
           {ROUNDED.format(name='joined', source='c')}
           w = DequantizeLinear <axis = 0> (weight, scale)
           y = Conv <{text}> (joined, w, bias) }}
        """)
    )


def run(model):
    images = np.random.default_rng(0).random((1, 2, 8, 12), np.float32) * 9
    options = ort.SessionOptions()
    options.add_session_config_entry('session.disable_quant_qdq', '1')
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options)
    return session.run(None, {'images': images})[0]


def test_the_sums_stay_the_same():
    model = model_of()
    expected = run(model)
    assert merge_focus(model.graph) == 1
    (conv,) = (n for n in model.graph if n.op_type == 'Conv')
    assert conv.inputs[0].name == 'x'
    assert list(conv.attributes['strides'].as_ints()) == [2, 2]
    assert list(conv.attributes['pads'].as_ints()) == [2] * 4
    np.testing.assert_allclose(run(model), expected, atol=1e-4)


@pytest.mark.parametrize(
    'other',
    [
        dict(phases=[(0, 0), (1, 0), (0, 1), (0, 1)]),  # a part is missing
        dict(end=6),  # not all rows and columns
        dict(cut='end, rows'),  # every row
        dict(cut='last, rows, two'),  # a computed bound
        dict(strides=[2, 2]),
        dict(dilations=[2, 2], pads=[2] * 4),
    ],
)
def test_others_stay_as_they_are(other):
    model = model_of(**other)
    assert merge_focus(model.graph) == 0


def test_each_weight_goes_to_its_pixel():
    weight = np.arange(4, dtype=np.int8).reshape(1, 4, 1, 1)
    expected = [[0, 2], [1, 3]]  # row by row
    assert spread_kernel(weight, PHASES).tolist() == [[expected]]
