"""Nodes are named after modules."""

import pytest

from mmgor.deploy.export.graph.node_names import name_nodes

ir = pytest.importorskip('onnx_ir')


def traced(kind, inputs, *path):
    """A node as a trace has it, of a module at a path."""
    scopes = ['', *path, f'{kind.lower()}_7']
    props = {'pkg.torch.onnx.name_scopes': str(scopes)}
    return ir.Node('', kind, inputs, metadata_props=props)


def test_names():
    x = ir.Value(name='x')
    conv = traced('Conv', [x], 'detector', 'detector.neck', 'detector.neck.a')
    same = traced('Conv', [x], 'detector', 'detector.neck', 'detector.neck.a')
    after = ir.Node('', 'Clip', conv.outputs)
    before = ir.Node('', 'DequantizeLinear', [ir.Value(name='integers')])
    reader = traced('Add', [before.outputs[0], x], 'detector', 'detector.head')
    alone = ir.Node('', 'Relu', [x])
    graph = ir.Graph([x], [], nodes=[conv, same, after, before, reader, alone])
    name_nodes(graph)
    assert [node.name for node in graph] == [
        'neck.a/Conv',
        'neck.a/Conv_2',
        'neck.a/Clip',
        'head/DequantizeLinear',
        'head/Add',
        '/Relu',
    ]
