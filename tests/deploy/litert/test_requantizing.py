"""Two roundings in a row stay two in the file."""

import numpy as np
import pytest
import torch

from mmgor.deploy.litert.conversion import convert
from tests.support.rounded import TwoGrids

litert = pytest.importorskip('ai_edge_litert.interpreter')
utils = pytest.importorskip('ai_edge_litert.tools.flatbuffer_utils')
pytest.importorskip('litert_torch')


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
    content = bytes(utils.convert_object_to_bytearray(model))
    runner = litert.Interpreter(model_content=content).get_signature_runner()
    ((_, end),) = runner.get_input_details().items()
    scale, zero = end['quantization']
    integers = np.rint(images.numpy() / scale) + zero
    results = runner(images=integers.clip(-128, 127).astype(np.int8))
    for name, details in runner.get_output_details().items():
        scale, zero = details['quantization']
        got = (results[name].astype(np.float32) - zero) * scale
        steps = np.abs(got - expected[name].numpy()) / scale
        # Sums of integers round a few values to the other side.
        assert (steps > 0.01).mean() < 0.05
        assert steps.mean() < 0.1
