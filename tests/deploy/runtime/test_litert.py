import numpy as np
import pytest
import torch

from mmgor.deploy.runtime.litert import dequantize, quantize
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.litert import convert_small, write_tflite

END = dict(dtype=np.int8, quantization=(0.5, -3))


def test_images_are_rounded_half_to_even_and_clipped():
    values = np.array([0, 0.25, 0.75, -1.0, 100, -100], np.float32)
    got = quantize(values, END)
    assert got.dtype == np.int8
    assert got.tolist() == [-3, -3, -1, -5, 127, -128]


def test_outputs_become_floats():
    got = dequantize(np.array([-3, 127, -128], np.int8), END)
    assert got.dtype == np.float32
    assert got.tolist() == [0.0, 65.0, -62.5]


def test_float_ends_stay():
    end = dict(dtype=np.float32, quantization=(0.0, 0))
    values = np.array([0.3], np.float32)
    assert quantize(values, end) is values
    assert dequantize(values, end) is values


@pytest.fixture(scope='module')
def converted():
    pytest.importorskip('litert_torch')
    pytest.importorskip('ai_edge_litert')
    return convert_small()


def test_a_runtime_checks_its_images_and_its_file(converted, tmp_path):
    path = write_tflite(converted.model, tmp_path / 'small.tflite')
    runtime = open_runtime(path, threads=1)
    (first,) = runtime(converted.images)
    assert first.shape == (1, 4, 16, 24)
    assert first.dtype == torch.float32
    (again,) = runtime(converted.images)
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match='images of 16 x 24'):
        runtime(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match='has only integer kernels'):
        open_runtime(path, integer_kernels=False)


def test_outputs_that_the_file_lacks_are_refused(converted, tmp_path):
    path = tmp_path / 'small.tflite'
    write_tflite(converted.model, path, outputs=['output_7'])
    with pytest.raises(ValueError, match=r"gives \['output_7'\]"):
        open_runtime(path)


def test_a_file_without_operators_is_refused(tmp_path):
    schema = pytest.importorskip('ai_edge_litert.schema_py_generated')
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [schema.SubGraphT()]
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    path = write_tflite(model, tmp_path / 'empty.tflite')
    with pytest.raises(ValueError, match='could not be opened by LiteRT'):
        open_runtime(path)
