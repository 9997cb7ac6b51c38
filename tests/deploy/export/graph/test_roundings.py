"""What is known of the values of a graph."""

import numpy as np
import pytest

from mmgor.deploy.export.graph.roundings import (
    constant,
    find_roundings,
    known_values,
)

parser = pytest.importorskip('onnx.parser')
ir = pytest.importorskip('onnx_ir')

ROUNDED = """
    {name}_q = QuantizeLinear({source}, scale{grid}, zero)
    {name} = DequantizeLinear({name}_q, scale{grid}, zero)
"""


def graph_of(body: str):
    """A graph whose lines may call R<grid>(source) for a rounding."""
    lines = []
    for line in body.strip().splitlines():
        name, _, call = (part.strip() for part in line.partition('='))
        if call[:2] in ('R1', 'R2'):
            lines.append(
                ROUNDED.format(name=name, source=call[3:-1], grid=call[1])
            )
        else:
            lines.append(line)
    text = f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[1, 2, 4, 4] x) => (float[N] y)
        <float scale1 = {{0.5}}, float scale2 = {{0.25}}, uint8 zero = {{0}},
         float three = {{3.0}}>
        {{ {''.join(lines)} }}
    """
    return ir.from_proto(parser.parse_model(text)).graph


def names(values):
    return {value.name for value in values}


def test_a_rounding_is_read():
    graph = graph_of('y = R1(x)')
    (rounding,) = find_roundings(graph)
    assert rounding.scale == np.float32(0.5)
    assert rounding.bounds == (0, 255)
    assert rounding.starts_at_zero
    assert rounding.clip is None
    assert constant(rounding.dequantize.inputs[1]) == np.float32(0.5)


def test_values_move_without_a_new_rounding():
    graph = graph_of(
        """
        a = R1(x)
        b = R1(x)
        c = R2(x)
        pooled = MaxPool <kernel_shape = [2, 2]> (a)
        same = Concat <axis = 1> (pooled, b)
        mixed = Concat <axis = 1> (pooled, c)
        total = Add (a, b)
        y = Relu (mixed)
        """
    )
    known = known_values(graph, find_roundings(graph))
    assert names(known.on_grid) == {'a', 'b', 'c', 'pooled', 'same'}
    grids = {value.name: grid for value, grid in known.on_grid.items()}
    assert grids['same'] == grids['a'] != grids['c']


def test_values_that_are_never_negative():
    graph = graph_of(
        """
        a = Relu(x)
        b = MaxPool <kernel_shape = [2, 2]> (a)
        c = Sigmoid(x)
        d = Concat <axis = 1> (b, c)
        e = Concat <axis = 1> (b, x)
        f = Add(a, c)
        g = Add(a, x)
        h = Sub(a, c)
        i = R1(x)
        y = Mul(i, c)
        """
    )
    known = known_values(graph, find_roundings(graph))
    # i is rounded to a grid that starts at 0.
    assert names(known.never_negative) == {*'abcdfiy'}
