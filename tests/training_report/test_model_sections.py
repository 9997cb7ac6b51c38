"""The tables of layers and of step sizes."""

import torch
from torch import nn

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from mmgor.training_report.model_sections import layer_section, scale_section
from mmgor.training_report.scales import MOVING, ScaleChange
from mmgor.training_report.weights import weight_errors
from tests.support.models import quantized_cfg
from tests.support.pages import Page


def test_every_layer_has_its_bits_and_its_error():
    torch.manual_seed(0)
    model = MODELS.build(quantized_cfg())
    images = torch.randn(1, 3, 64, 64)
    calibrate(model, [images], model)
    cells = Page(layer_section(model, 'x.pth')).texts['td']
    rows = {cells[i]: cells[i : i + 8] for i in range(0, len(cells), 8)}
    for name, error in weight_errors(model).items():
        layer = model.get_submodule(name)
        bits = layer.weight_quantizer.bits
        assert rows[name][2] == f'{bits}/{layer.input_quantizer.bits}'
        assert rows[name][5] == f'{100 * error.error:.1f}%'
        # Calibrated on these weights: about 2 ** -bits.
        assert 0.2 < error.error * 2**bits < 4


def test_a_float_model_is_said_to_be_one():
    text = layer_section(nn.Conv2d(1, 1, 1), 'x.pth')
    assert 'has no quantized layer' in text


def test_step_sizes():
    changes = [
        ScaleChange('a.conv.weight_quantizer', -0.2, 2 * MOVING, 64),
        ScaleChange('backbone.tensor_quantizer.sum', 1e-6, 0.01, 1),
    ]
    page = Page(scale_section(changes, ('epoch_1.pth', 'epoch_2.pth')))
    assert page.texts['td'] == [
        *('a.conv', 'its weight', '64', '-20.0', '10.0'),
        'backbone.tensor_quantizer.sum',
        *('a tensor between layers', '1', '+0.0', '1.0'),
    ]
    notes = ' '.join(page.texts['li'])
    assert 'from epoch_1.pth to epoch_2.pth' in notes
    assert '1 of 2 quantizers' in notes
    assert 'longer training' in notes
    resting = scale_section(changes[1:], ('a', 'b'))
    assert 'So they rest' in resting
    assert 'no learned step sizes in common' in scale_section([], ('a', 'b'))
