import pytest
import torch

from mmgor.deploy.ncnn.graph import NcnnGraph
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.ncnn import write_ncnn_files

pytest.importorskip('ncnn')


def doubling(folder, **changes):
    graph = NcnnGraph('images', (3, 16, 24))
    double = graph.add('BinaryOp', ['images'], {0: 2, 1: 1, 2: 2.0})
    graph.outputs = {'output_0': double}
    return write_ncnn_files(*graph.files(), folder / 'file.param', **changes)


def test_a_file_runs_and_leaves_earlier_results(tmp_path):
    runtime = open_runtime(doubling(tmp_path), threads=1)
    images = torch.randn(1, 3, 16, 24)
    (found,) = runtime(images)
    runtime(torch.zeros(1, 3, 16, 24))
    torch.testing.assert_close(found, 2 * images, rtol=0, atol=0)


def test_metadata_has_to_fit_the_layers(tmp_path):
    path = doubling(tmp_path, outputs=['output_1'])
    with pytest.raises(ValueError, match=r'can not be used: its metadata'):
        open_runtime(path)


def test_an_input_without_a_size_is_refused(tmp_path):
    lines = '7767517\n2 2\nInput input0 0 1 images\n'
    lines += 'ReLU a 1 1 images output_0\n'
    path = write_ncnn_files(lines, b'', tmp_path / 'file.param')
    with pytest.raises(ValueError, match=r'file\.param can not be used: its'):
        open_runtime(path)


def test_unknown_layers_are_refused(tmp_path):
    lines = '7767517\n2 2\nInput input0 0 1 images 0=24 1=16 2=3\n'
    lines += 'NoLayer a 1 1 images output_0\n'
    path = write_ncnn_files(lines, b'', tmp_path / 'file.param')
    with pytest.raises(ValueError, match=r'could not be opened by ncnn 1\.'):
        open_runtime(path)
