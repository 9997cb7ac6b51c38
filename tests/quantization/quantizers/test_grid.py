import pytest
import torch
from torch import nn

from mmgor.quantization import (
    DoReFaQuantizer,
    Grid,
    LSQPlusQuantizer,
    LSQQuantizer,
    MinMaxQuantizer,
    PACTQuantizer,
)
from mmgor.quantization.layers.quant_layers import to_quantized


def ready(cls, bits=4, signed=True, **kwargs):
    """A calibrated quantizer whose scales all differ."""
    quantizer = cls(bits, **kwargs)
    quantizer.choose_range(signed)
    scale = torch.linspace(0.05, 0.2, quantizer.num_scales)
    low, high = scale * quantizer.qmin, scale * quantizer.qmax
    quantizer.set_ranges(scale, -3.3 * scale, low, high)
    return quantizer.eval()


@pytest.mark.parametrize(
    'cls',
    [
        LSQQuantizer,
        LSQPlusQuantizer,
        PACTQuantizer,
        DoReFaQuantizer,
        MinMaxQuantizer,
    ],
)
@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('slot', [0, 2])
def test_quantized_inputs_are_the_values_of_their_integers(cls, signed, slot):
    quantizer = ready(cls, signed=signed, num_scales=3)
    x = torch.linspace(-4, 4, 1001).view(1, 7, 13, 11)
    grid = quantizer.grid(x, slot)
    integers = grid.quantize(x)
    assert grid.scale.shape == ()
    assert integers.min() == grid.qmin and quantizer.num_slots == 3
    assert integers.max() == quantizer.qmax
    expected = quantizer.quantize(x, slot)
    torch.testing.assert_close(
        grid.dequantize(integers), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize('cls', [LSQQuantizer, LSQPlusQuantizer])
def test_one_scale_per_channel(cls):
    quantizer = ready(cls, num_scales=6, channels=3)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    grid = quantizer.grid(x, slot=1)
    assert grid.scale.shape == (3,) and quantizer.num_slots == 2
    torch.testing.assert_close(
        grid.dequantize(grid.quantize(x)), quantizer.quantize(x, 1)
    )


def test_offset_by_hand():
    quantizer = ready(LSQPlusQuantizer)  # step 0.05, 0 .. 15, offset -3.3
    grid = quantizer.grid(torch.zeros(1))
    assert (grid.qmin, grid.qmax, int(grid.zero_point)) == (0, 15, 3)
    x = torch.tensor([-1.0, -0.15, 0.0, 0.1, 0.6, 9.0])
    assert grid.quantize(x).tolist() == [0, 0, 3, 5, 15, 15]


def test_grid_broadcasts_along_its_axis():
    grid = Grid(
        torch.tensor([1.0, 2.0]),
        torch.tensor([0, 1], dtype=torch.int32),
        -7,
        7,
        axis=1,
    )
    x = torch.tensor([[3.0, 3.2], [100.0, -3.8]])
    assert grid.quantize(x).tolist() == [[3, 3], [7, -1]]
    values = grid.dequantize(torch.tensor([[3, 3], [7, -1]]))
    assert values.tolist() == [[3.0, 4.0], [7.0, -4.0]]


@pytest.mark.parametrize('per_channel', [True, False])
@pytest.mark.parametrize(
    'cls', [LSQQuantizer, DoReFaQuantizer, MinMaxQuantizer]
)
@pytest.mark.parametrize(
    'kind, kwargs',
    [
        (nn.Conv2d, dict(kernel_size=3, groups=2)),
        (nn.ConvTranspose2d, dict(kernel_size=2, groups=2)),
        (nn.Linear, {}),
    ],
)
def test_weight_integers(cls, per_channel, kind, kwargs):
    layer = kind(4, 6, **kwargs)
    count = 6 if per_channel else 1
    quantizer = ready(
        cls, num_scales=count, for_weight=True, per_channel=per_channel
    )
    to_quantized(layer, quantizer, ready(LSQQuantizer))
    integers, grid = layer.weight_integers()
    assert integers.dtype == torch.int32
    assert integers.shape == layer.channels_first().shape
    assert integers.abs().max() <= 7
    torch.testing.assert_close(
        grid.dequantize(integers),
        quantizer(layer.channels_first()).detach(),
        rtol=0,
        atol=1e-6,
    )


def test_uncalibrated_has_no_grid():
    with pytest.raises(RuntimeError, match='never calibrated'):
        LSQQuantizer(4).grid(torch.zeros(1))
