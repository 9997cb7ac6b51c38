"""What ``tensors='all'`` refuses, and what it names."""

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmgor.quantization import (
    QuantPolicy,
    quantized_layers,
    tensor_quantizers,
    uncalibrated_layers,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.tensors.operations import Kind
from mmgor.quantization.tensors.prepare import round_tensors
from mmgor.registry import MODELS

from .toys import Residual, quantized

QUANT = dict(w_bits=4, a_bits=4, tensors='all')


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    texts = []
    monkeypatch.setattr(
        MMLogger, 'log', lambda self, level, text, *_: texts.append(text)
    )
    MMLogger.get_instance('mmengine')
    return texts


def backbone(**kwargs):
    cfg = dict(type='QuantBackbone', backbone='ResNet', depth=18, quant=QUANT)
    return MODELS.build(dict(cfg, base_channels=8, stem_channels=8, **kwargs))


def test_checkpointing_is_refused():
    with pytest.raises(ValueError, match='with_cp=True in ResNet'):
        backbone(with_cp=True)


def test_a_module_that_reads_what_it_changed_is_refused():
    class Aliased(Residual):
        def forward(self, x):
            first = self.conv0(x)
            other = first
            first += self.conv1(first)
            return self.conv2(other)

    with pytest.raises(ValueError, match='would change what Aliased'):
        quantized(Aliased())


def test_a_module_that_cannot_be_run_is_refused():
    class Broken(Residual):
        def forward(self, x):
            raise KeyError('meta')

    with pytest.raises(ValueError, match=r"run Broken once.*KeyError\('meta"):
        quantized(Broken())


def test_operations_that_stay_in_float_are_named(said):
    class Normed(Residual):
        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(2, 4)

        def forward(self, x):
            return self.conv1(self.norm(self.conv0(x)))

    policy = QuantPolicy(tensors='all')
    net = Normed()
    quantize_layers(net, policy, set())
    round_tensors(net, policy, [dict(x=torch.zeros(1, 3, 8, 8))])
    assert any('stay in float: norm: group_norm' in text for text in said)


def test_a_neck_after_a_float_backbone_says_what_to_write():
    neck = MODELS.build(
        dict(
            type='QuantNeck',
            neck='FPN',
            in_channels=[8, 16],
            out_channels=8,
            num_outs=2,
            quant=QUANT,
        )
    )
    maps = torch.zeros(1, 8, 8, 8), torch.zeros(1, 16, 4, 4)
    message = r'lateral_convs\.0\.conv.*expected'
    with pytest.raises(RuntimeError, match=message):
        neck(maps)


def test_scales_per_channel_are_refused():
    with pytest.raises(ValueError, match='per_channel_depthwise=True'):
        QuantPolicy(tensors='all', per_channel_depthwise=True)


@pytest.mark.parametrize(
    'quant, message',
    [
        (dict(target='litert', tensors='inputs'), "needs tensors='all'"),
        (dict(target='ncnn', tensors='all'), "needs tensors='inputs'"),
        (dict(target='litret'), 'litert'),
        (
            dict(
                target='tensorrt',
                input_quantizer=dict(type='LSQPlusQuantizer'),
            ),
            'has no zero points.*LSQPlusQuantizer',
        ),
        (dict(target='litert', per_channel_depthwise=True), 'per activation'),
    ],
)
def test_a_target_refuses_what_it_cannot_run(quant, message):
    with pytest.raises(ValueError, match=message):
        QuantPolicy(**quant)


def test_a_target_fills_in_what_it_needs():
    assert QuantPolicy().tensors == 'inputs'
    assert QuantPolicy(target='litert').tensors == 'all'
    assert not QuantPolicy(target='litert').symmetric
    assert QuantPolicy(target='ncnn').tensors == 'inputs'
    assert QuantPolicy(target='ncnn').symmetric


def test_a_symmetric_target_keeps_seven_bits_of_unsigned_inputs():
    net = quantized(Residual(), a_bits=8)
    assert int(net.conv1.input_quantizer.qmax) == 255
    policy = QuantPolicy(target='tensorrt', a_bits=8)
    quantizer = MODELS.build(policy.input_config(8, 1))
    quantizer.choose_range(signed=False)
    assert (int(quantizer.qmin), int(quantizer.qmax)) == (0, 127)
    quantizer.choose_range(signed=True)
    assert (int(quantizer.qmin), int(quantizer.qmax)) == (-127, 127)
    narrow = MODELS.build(policy.input_config(4, 1))
    narrow.choose_range(signed=True)
    assert (int(narrow.qmin), int(narrow.qmax)) == (-8, 7)


def test_weights_without_ranges_make_the_old_ranges_void():
    net = quantized(Residual())
    net.load_state_dict(Residual().state_dict(), strict=False)
    assert {*uncalibrated_layers(net)} == {
        *quantized_layers(net),
        *tensor_quantizers(net),
    }


def test_ranges_of_tensors_come_with_all_weights():
    net, state = quantized(Residual()), quantized(Residual()).state_dict()
    assert net.load_state_dict(state).missing_keys == []
    assert uncalibrated_layers(net) == []
    del state['conv3.weight']  # as for another number of classes
    net.load_state_dict(state, strict=False)
    assert {*uncalibrated_layers(net)} == {*tensor_quantizers(net)}
    fresh = Residual()
    policy = QuantPolicy(tensors='all')
    quantize_layers(fresh, policy, set())
    round_tensors(fresh, policy, [dict(x=torch.zeros(1, 3, 8, 8))])
    fresh.load_state_dict(state, strict=False)
    assert {*tensor_quantizers(fresh)} <= {*uncalibrated_layers(fresh)}


@pytest.mark.parametrize(
    'neck',
    [
        dict(neck='FPN', in_channels=[8, 16, 32], out_channels=8, num_outs=4),
        dict(neck='YOLOXPAFPN', in_channels=[8, 16, 32], out_channels=8),
        dict(neck='CSPNeXtPAFPN', in_channels=[8, 16, 32], out_channels=8),
        dict(neck='PAFPN', in_channels=[8, 16], out_channels=8, num_outs=2),
        # It lists the coarsest map first.
        dict(
            neck='YOLOV3Neck',
            num_scales=3,
            in_channels=[32, 16, 8],
            out_channels=[16, 8, 4],
        ),
        dict(
            neck='DilatedEncoder',
            in_channels=8,
            out_channels=8,
            block_mid_channels=4,
            num_residual_blocks=1,
            block_dilations=[2],
        ),
    ],
    ids=lambda cfg: cfg['neck'],
)
def test_necks_round_every_tensor(neck):
    """Nothing is left out, and what they are given is not rounded again."""
    module = MODELS.build(dict(type='QuantNeck', quant=QUANT, **neck))
    plan = module.rounding_plan
    assert plan.uncovered == [] and plan.given
    assert all(plan.returned)
    fused = {Kind.RELU}
    for step in plan.steps:
        assert (
            step.given or step.makes or any(step.reads) or (step.kind in fused)
        )


def test_bits_that_a_given_tensor_cannot_get_are_named(said):
    overrides = {'lateral_convs.0.*': dict(a_bits=8), 'fpn_convs.*': None}
    neck = dict(neck='FPN', in_channels=[8, 8], out_channels=8, num_outs=2)
    quant = dict(QUANT, overrides=overrides)
    MODELS.build(dict(type='QuantNeck', quant=quant, **neck))
    found = [text for text in said if 'has no effect' in text]
    assert len(found) == 1 and 'on lateral_convs.0.conv. These' in found[0]


def test_predictions_that_read_a_given_tensor_are_named(said):
    head = dict(head='RetinaHead', num_classes=2, in_channels=8)
    MODELS.build(dict(head, type='QuantHead', quant=QUANT, stacked_convs=0))
    (found,) = [text for text in said if 'first_last_bits=8' in text]
    assert 'input of retina_cls, retina_reg to its a_bits' in found
    del said[:]
    MODELS.build(dict(head, type='QuantHead', quant=QUANT, feat_channels=8))
    assert not any('first_last_bits' in text for text in said)
