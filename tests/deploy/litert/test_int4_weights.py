import copy

import numpy as np
import torch

from mmgor.deploy.litert.int4_weights import pack_int4, use_int4_weights
from mmgor.deploy.litert.rules import TFLiteFile
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.litert import write_tflite


def test_the_first_integer_is_in_the_low_half():
    integers = np.array([1, -1, -8, 7, 5], np.int8)
    assert pack_int4(integers).tolist() == [0xF1, 0x78, 0x05]


@torch.no_grad()
def test_small_weights_take_half_a_byte(small, model, tmp_path):
    assert use_int4_weights(model) == 1  # the block has 4 bits
    file = TFLiteFile(model)
    weights = [op.inputs[1] for op in file.operators if op.kind == 'CONV_2D']
    kinds = [file.type_of(weight) for weight in weights]
    assert kinds == ['INT8', 'INT4', 'INT8']
    assert len(model.buffers[weights[1].buffer].data) == 8 * 8 * 9 / 2
    int4 = open_runtime(write_tflite(model, tmp_path / 'int4.tflite'))
    original = copy.deepcopy(small.model)
    int8 = open_runtime(write_tflite(original, tmp_path / 'int8.tflite'))
    images = torch.randn(1, 3, 16, 24)
    (wanted,), (got,) = int8(images), int4(images)
    # Another kernel rounds the same sums.
    assert (got - wanted).abs().mean() <= 0.02 * wanted.std()
