"""The two files of ncnn, written by hand-made graphs."""

import numpy as np

from mmgor.deploy.ncnn.graph import NcnnGraph, format_params, weight_bytes


def test_params_are_written_as_ncnn_reads_them():
    params = {0: 3, 11: np.int64(1), 1: 0.5, 9: (1, 2)}
    assert format_params(params) == '0=3 11=1 1=5.00000000e-01 -23309=2,1,2'


def test_a_weight_has_the_tag_of_its_type_and_full_words():
    assert weight_bytes(np.array([1, -2, 3], np.int8)) == bytes.fromhex(
        '384b0d00 01fe0300'
    )
    assert weight_bytes(np.array([1.0], np.float32)) == bytes.fromhex(
        '00000000 0000803f'
    )


def test_a_tensor_with_several_readers_is_split():
    graph = NcnnGraph('images', (3, 4, 8))
    relu = graph.add('ReLU', ['images'])
    graph.add('Sigmoid', [relu], weights=b'not read')
    both = graph.add('BinaryOp', [relu, 'images'], {0: 0}, b'read')
    graph.outputs = {'sum': both, 'relu': relu}
    text, weights = graph.files()
    assert weights == b'read'
    assert text.splitlines() == [
        '7767517',
        '5 7',
        'Input input0 0 1 images 0=8 1=4 2=3',
        'Split split1 1 2 images images_copy0 images_copy1',
        'ReLU relu2 1 1 images_copy1 blob1',
        'Split split3 1 2 blob1 blob1_copy0 relu',
        'BinaryOp binaryop4 2 1 blob1_copy0 images_copy0 sum 0=0',
    ]


def test_one_tensor_may_be_two_outputs():
    graph = NcnnGraph('images', (3, 4, 8))
    relu = graph.add('ReLU', ['images'])
    graph.outputs = {'a': relu, 'b': relu}
    lines = graph.files()[0].splitlines()
    assert lines[-1] == 'Split split2 1 2 blob1 a b'
