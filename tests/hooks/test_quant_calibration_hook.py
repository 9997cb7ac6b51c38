"""Calibration runs the student as training does, and changes nothing else."""

import copy
import io
import logging
import random

import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmgor.hooks import QuantCalibrationHook
from mmgor.hooks.student import run_losses
from mmgor.quantization import calibrate, uncalibrated_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS
from tests.support.models import make_batch, student_cfg


class LossOnly(BaseModel):
    """As in DDQ and GLIP, ``mode='tensor'`` needs more than a batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        quantize_layers(self, QuantPolicy(), set())
        self.seen = []

    def forward(self, inputs, mode='tensor'):
        assert mode == 'loss' and self.training
        self.seen.append(inputs.mean().item())
        return dict(loss=self.linear(inputs).square().mean())


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


class Noisy(torch.utils.data.Dataset):
    """Its augmentation draws from the global random generators."""

    wide = False  # whether the second value is 50 times the first

    def __len__(self):
        return 6

    def __getitem__(self, index):
        inputs = index + torch.tensor([draws()[0], draws()[1]])
        factor = torch.tensor([1.0, 50.0 if self.wide else 1.0])
        return dict(inputs=inputs * factor)


def runner_of(model, tmp_path, name, hooks, loop=None):
    return Runner(
        model,
        str(tmp_path / name),
        dict(
            dataset=Noisy(),
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=loop or dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=hooks,
        default_hooks=dict(checkpoint=None),
        default_scope='mmdet',
        randomness=dict(seed=0),
        experiment_name=f'{tmp_path.name}{name}',
        log_level='ERROR',
    )


def test_training_does_not_notice_a_calibration(tmp_path):
    """A resumed run does not calibrate, and draws the same numbers."""
    model = LossOnly()
    plain = runner_of(model, tmp_path, 'a', [QuantCalibrationHook(2)])
    plain.train()
    calibrated_on, trained_on = model.seen[:2], model.seen[2:]
    assert calibrated_on == trained_on[:2] and len(trained_on) == 3
    again = LossOnly()
    again.load_state_dict(model.state_dict())
    runner_of(again, tmp_path, 'b', [QuantCalibrationHook(2)]).train()
    assert again.seen == trained_on


def test_a_line_says_what_stays_in_float(tmp_path):
    """2 weights are quantized and used for every row; 4 are neither."""
    model = LossOnly()
    model.extra = nn.Linear(2, 2, bias=False)
    runner = runner_of(model, tmp_path, 'c', [QuantCalibrationHook(2)])
    text = io.StringIO()
    runner.logger.addHandler(logging.StreamHandler(text))
    runner.logger.setLevel('WARNING')
    runner.train()
    assert (
        'In float: 66.7% of the weights and 0.0% of the multiply-accumulates '
        '(66.7% / 0.0% not wrapped: extra)' in text.getvalue()
    )


def test_neither_teachers_nor_the_balancer_run(teacher_spec, monkeypatch):
    torch.manual_seed(0)
    model = MODELS.build(student_cfg(teacher_spec))
    before = copy.deepcopy(model.gor_weighting.state_dict())
    batch = make_batch()
    monkeypatch.setattr(
        model.data_preprocessor, 'forward', lambda data, training: data
    )
    # Its teachers were never built, so running one would be an error.
    calibrate(model, [batch], lambda b: run_losses(model, b))
    for key, value in model.gor_weighting.state_dict().items():
        assert torch.equal(value, before[key])
    got = {k: v.clone() for k, v in model.state_dict().items()}
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    for key, value in model.state_dict().items():
        assert torch.equal(value, got[key]), key


@pytest.mark.parametrize('count', [1, 2])
def test_a_layer_that_only_the_losses_call_is_reached(count):
    model = LossOnly()
    batch = dict(inputs=torch.randn(4, 2))
    calibrate(model, [batch] * count, lambda b: run_losses(model, b))
    assert uncalibrated_layers(model) == [] and len(model.seen) == count


class Conv(LossOnly):
    """A wide and a narrow channel between two convolutions."""

    def __init__(self):
        super().__init__()
        args = dict(norm_cfg=dict(type='EvalBN'), act_cfg=dict(type='Swish'))
        self.first = ConvModule(1, 2, 1, **args)
        self.second = ConvModule(2, 2, 1, **args)
        nn.init.constant_(self.first.conv.weight, 1.0)
        self.first.norm.weight.data.copy_(torch.tensor([0.1, 50.0]))
        quantize_layers(self, QuantPolicy(w_bits=8, a_bits=8), set())

    def forward(self, inputs, mode='tensor'):
        images = self.linear(inputs)[:, :, None, None]
        return dict(loss=self.second(self.first(images)).square().mean())


def test_channels_are_equalized_once_before_calibration(tmp_path):
    pairs = {'first': ['second']}
    loop = dict(type='CalibrationLoop', max_epochs=0)
    model = Conv()
    for name in ('d', 'e'):
        before = copy.deepcopy(model.state_dict())
        hooks = [QuantCalibrationHook(2, equalize=pairs)]
        runner = runner_of(model, tmp_path, name, hooks, loop)
        runner.train()
    gain = model.first.norm.weight.detach() / torch.tensor([0.1, 50.0])
    assert gain[0] > 1 > gain[1]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


ON = dict(correct_norms=True, compensate_weights=True)


def test_norms_and_weights_are_changed_once_after_calibration(tmp_path):
    loop = dict(type='CalibrationLoop', max_epochs=0)
    model = Conv()
    names = 'first.bn.running_mean', 'second.conv.weight'
    values = []
    for name in ('h', 'i'):
        hooks = [QuantCalibrationHook(2, **ON)]
        runner_of(model, tmp_path, name, hooks, loop).train()
        state = model.state_dict()
        values.append([state[key].clone() for key in names])
    start = Conv().state_dict()
    assert all(
        not torch.equal(value, start[key])
        for key, value in zip(names, values[0])
    )
    assert all(map(torch.equal, *values))


def test_a_quantized_checkpoint_is_left_alone(tmp_path):
    """It knows rounding already; here its first layer gets other bits."""
    model = Conv()
    file = tmp_path / 'four_bits.pth'
    runner_of(
        model,
        tmp_path,
        'j',
        [QuantCalibrationHook(1)],
        dict(type='CalibrationLoop', max_epochs=0),
    ).train()
    state = model.state_dict()
    state['linear.weight_quantizer.qmax'] = torch.tensor(1)
    torch.save(state, file)
    other = Conv()
    runner = runner_of(
        other,
        tmp_path,
        'k',
        [QuantCalibrationHook(2, **ON)],
        dict(type='CalibrationLoop', max_epochs=0),
    )
    runner._load_from = str(file)
    runner.train()
    assert uncalibrated_layers(other) == []
    for key, value in other.state_dict().items():
        if 'running_' in key or key.endswith('.weight'):
            assert torch.equal(value, state[key])


def test_compensation_needs_norms_that_follow():
    with pytest.raises(ValueError, match='correct_norms=True beside it'):
        QuantCalibrationHook(compensate_weights=True)


def test_the_loss_weighs_errors_if_asked_to(tmp_path):
    """It does not depend on the second of two inputs."""
    loop = dict(type='CalibrationLoop', max_epochs=0)
    scales = []
    for name, weighted in (('f', False), ('g', True)):
        model = LossOnly()
        model.linear.weight.data = torch.tensor([[1.0, 0.0]])
        hooks = [QuantCalibrationHook(2, loss_weighted=weighted)]
        runner = runner_of(model, tmp_path, name, hooks, loop)
        runner.train_dataloader.dataset.wide = True
        runner.train()
        scales.append(model.linear.input_quantizer.log_scale.exp().item())
    assert scales[1] < scales[0]
