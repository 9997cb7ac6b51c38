import pytest
import torch

from mmgor.quantization import MinMaxQuantizer
from tests.support.quantizers import ready


def test_minmax_average_moves_in_training_only():
    quantizer = ready(MinMaxQuantizer, signed=True, momentum=0.25)
    quantizer(torch.tensor([-4.0, 5.5]))
    assert quantizer.high.item() == pytest.approx(0.7)
    quantizer.train()(torch.tensor([-4.0, 5.5]))
    # A quarter of the way from 0.7 to 5.5, and from -0.8 to -4.
    assert quantizer.high.item() == pytest.approx(1.9)
    assert quantizer.low.item() == pytest.approx(-1.6)


def test_minmax_momentum_out_of_range():
    with pytest.raises(ValueError, match=r'momentum must be in \(0, 1\]'):
        MinMaxQuantizer(4, momentum=0.0)
