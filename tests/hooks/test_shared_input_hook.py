from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmgor.hooks import SharedInputHook
from mmgor.quantization import calibrate
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy


class Model(nn.Module):
    """``main`` and ``short`` both read the output of ``stem``."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.main = nn.Conv2d(4, 4, 1)
        self.short = nn.Conv2d(4, 4, 1)

    def data_preprocessor(self, batch, training):
        return dict(inputs=batch)

    def forward(self, inputs, mode='tensor'):
        x = self.stem(inputs)
        return self.main(x) + self.short(x)


@pytest.fixture
def runner():
    torch.manual_seed(0)
    model = Model()
    quantize_layers(model, QuantPolicy(), set())
    batch = torch.randn(2, 3, 8, 8)
    calibrate(model, [batch], model)
    logger = MMLogger.get_current_instance()
    return SimpleNamespace(model=model, logger=logger, batch=batch)


def scales(model):
    return [
        getattr(model, name).input_quantizer.log_scale
        for name in ('stem', 'main', 'short')
    ]


def test_shares_the_trained_ranges(runner):
    hook = SharedInputHook()
    for iteration in range(3):
        stem, main, short = scales(runner.model)
        main.data += 0.1
        short.data += 0.3
        moved = [stem.item(), main.item(), short.item()]
        if iteration == 0:  # from a checkpoint of a run without the hook
            hook.before_train_iter(runner, 0, runner.batch)
        else:
            hook.after_train_iter(runner, iteration)
        mean = (moved[1] + moved[2]) / 2
        got = [scale.item() for scale in scales(runner.model)]
        assert got == pytest.approx([moved[0], mean, mean])


def test_groups_are_found_once(runner):
    hook = SharedInputHook()
    hook.before_train_iter(runner, 0, runner.batch)
    hook.before_train_iter(runner, 1, 'no batch')


def test_finds_the_model_in_a_wrapper(runner):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module('TestWrapper', module=Wrapper)
    try:
        runner.model = Wrapper(runner.model)
        SharedInputHook().before_train_iter(runner, 0, runner.batch)
    finally:
        MODEL_WRAPPERS.module_dict.pop('TestWrapper')


def test_nothing_to_share_is_an_error(runner):
    runner.model.forward = lambda inputs, mode: runner.model.stem(inputs)
    with pytest.raises(RuntimeError, match='found no quantized layers that'):
        SharedInputHook().before_train_iter(runner, 0, runner.batch)
