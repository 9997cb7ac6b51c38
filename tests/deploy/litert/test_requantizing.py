"""Two roundings in a row stay two in the file."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmgor.deploy.litert.conversion import convert
from mmgor.deploy.litert.rules import TFLiteFile
from tests.support.rounded import Conv, Rounding, TwoGrids

litert = pytest.importorskip('ai_edge_litert.interpreter')
utils = pytest.importorskip('ai_edge_litert.tools.flatbuffer_utils')
pytest.importorskip('litert_torch')


def run(model, images):
    """The values of each output of a ``.tflite``, and its step."""
    content = bytes(utils.convert_object_to_bytearray(model))
    runner = litert.Interpreter(model_content=content).get_signature_runner()
    ((_, end),) = runner.get_input_details().items()
    scale, zero = end['quantization']
    integers = np.rint(images.numpy() / scale) + zero
    results = runner(images=integers.clip(-128, 127).astype(np.int8))
    found = {}
    for name, details in runner.get_output_details().items():
        scale, zero = details['quantization']
        found[name] = (results[name].astype(np.float32) - zero) * scale, scale
    return found


@pytest.mark.parametrize('bits', [8, 6, 4])
@pytest.mark.parametrize('signed', [True, False])
def test_layers_and_concatenations_read_the_second_grid(bits, signed):
    torch.manual_seed(0)
    network, images = TwoGrids(bits, signed).eval(), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        network(images)  # takes the ranges
        network.second.scale *= 1.0371  # no ties between the grids
        expected = dict(zip('ab', network(images)))
    model, _ = convert(network, images, ['a', 'b'])
    results = run(model, images)
    assert results.keys() == expected.keys()
    for name, (got, scale) in results.items():
        steps = np.abs(got - expected[name].numpy()) / scale
        # Sums of integers round a few values to the other side.
        assert (steps > 0.01).mean() < 0.05
        assert steps.mean() < 0.1


class Levels(nn.Module):
    """An output that a layer, a pooling and an addition read, too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Conv(3, 4), Conv(4, 4)
        self.image, self.middle, self.output = (Rounding() for _ in range(3))

    def forward(self, x):
        x = self.middle(self.first(self.image(x)))
        pooled = self.middle(F.max_pool2d(x, 1, 2))
        y = self.output(F.relu(self.second(x)))
        z = self.output(F.relu(self.second(pooled)))
        return [x, pooled, y, z]


def test_an_output_that_is_read_inside_leaves_its_readers_in_integers():
    torch.manual_seed(0)
    network, images = Levels().eval(), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        wanted = network(images)
    model, _ = convert(network, images, ['x', 'pooled', 'y', 'z'])
    kinds = {
        op.kind: {file.type_of(t) for t in op.outputs}
        for file in [TFLiteFile(model)]
        for op in file.operators
    }
    assert kinds['CONV_2D'] == {'INT8'}
    assert 'DEQUANTIZE' not in kinds
    results = run(model, images)
    for name, values in zip(['x', 'pooled', 'y', 'z'], wanted, strict=True):
        got, scale = results[name]
        # Biases are integers in the file.
        assert np.abs(got - values.numpy()).mean() < 0.1 * scale
