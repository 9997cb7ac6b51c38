"""A file that ONNX Runtime opens, and one that it opens on request alone."""

import warnings
from pathlib import Path

import pytest

from mmgor.deploy.export.graph.opening import warn_unless_it_opens

onnx = pytest.importorskip('onnx')
parser = pytest.importorskip('onnx.parser')
pytest.importorskip('onnxruntime')


def write(folder, kind):
    """A graph of one operator."""
    model = parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[4] x) => (float[4] y) {{ y = {kind} (x) }}
    """)
    path = folder / 'part.onnx'
    onnx.save(model, path)
    return path


def test_a_file_that_opens(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_unless_it_opens(write(tmp_path, 'Relu'), Path('a.onnx'))


def test_a_file_that_does_not_open(tmp_path):
    with pytest.warns(UserWarning, match=r'can not open a\.onnx .*Nonesuch'):
        warn_unless_it_opens(write(tmp_path, 'Nonesuch'), Path('a.onnx'))
