import torch

from mmgor.deploy.litert.rules import TFLiteFile
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.litert import write_tflite


def test_every_operator_is_an_integer_one(small):
    file = TFLiteFile(small.model)
    assert small.folded == 3
    assert [op.kind for op in file.operators] == [
        'TRANSPOSE',  # LiteRT has the channels last
        'CONV_2D',
        'CONV_2D',
        'ADD',
        'MAX_POOL_2D',
        'RESIZE_NEAREST_NEIGHBOR',
        'CONCATENATION',
        'SUB',
        'MAXIMUM',  # four bits without a ReLU
        'CONV_2D',
        'TRANSPOSE',
    ]
    for op in file.operators:
        assert {file.type_of(t) for t in op.outputs} == {'INT8'}


@torch.no_grad()
def test_file_computes_what_the_network_does(small, model, tmp_path):
    runtime = open_runtime(write_tflite(model, tmp_path / 'small.tflite'))
    images = torch.randn(1, 3, 16, 24)
    (got,) = runtime(images)
    (wanted,) = small.network(images)
    step = 1.07 / 16
    # LiteRT adds integers of three scales, and rounds ties away from zero.
    assert (got - wanted).abs().max() <= 4 * step + 1e-5
    assert (got - wanted).abs().mean() <= 0.03 * wanted.std()
    steps = got / step
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
