"""Students are packed and read back, or refused."""

import os

import pytest
import torch
from torch import nn

from mmgor.deploy.packing import pack
from mmgor.deploy.packing.pack import pack_model, read_packed
from mmgor.quantization import LSQQuantizer, calibrate, layer_table
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS
from tests.support.models import (
    make_batch,
    quantized_cfg,
    retinanet_cfg,
    student_cfg,
)
from tests.support.packing import assert_same_student, small, student

WEIGHT_QUANTIZERS = ['LSQQuantizer', 'DoReFaQuantizer', 'MinMaxQuantizer']


@pytest.fixture(scope='module')
def retinanet():
    return student(quantized_cfg())


def test_detections_are_those_of_the_checkpoint(tmp_path, retinanet):
    model = retinanet
    pack_model(model, tmp_path / 'x.mmgor', dict(classes=['a', 'b', 'c']))
    state_dict, manifest = read_packed(tmp_path / 'x.mmgor')
    assert manifest['meta'] == dict(classes=['a', 'b', 'c'])
    assert list(state_dict) == list(model.state_dict())
    fresh = MODELS.build(quantized_cfg()).eval()
    fresh.load_state_dict(state_dict)
    assert_same_student(model, fresh)
    batch = make_batch()
    with torch.no_grad():
        before = model(**batch, mode='predict')
        after = fresh(**make_batch(), mode='predict')
    for one, two in zip(before, after):
        assert len(one.pred_instances) > 0
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(one.pred_instances[key],
                               two.pred_instances[key])  # fmt: skip


@pytest.mark.parametrize('per_channel', [True, False])
@pytest.mark.parametrize('bits', [2, 4, 8])
@pytest.mark.parametrize('kind', WEIGHT_QUANTIZERS)
def test_every_weight_quantizer(tmp_path, kind, bits, per_channel):
    policy = QuantPolicy(
        w_bits=bits,
        weight_quantizer=dict(type=kind),
        input_quantizer=dict(type='LSQPlusQuantizer'),
        per_channel=per_channel,
    )
    module = small(policy)
    with torch.no_grad():
        # Magnitudes where tanh saturates, a dead channel, and a subnormal.
        module[0].weight[0] *= 100
        module[0].weight[1] = 0
        module[4].weight[2] *= 1e-42
    pack_model(module, tmp_path / 'x', {})
    state_dict, _ = read_packed(tmp_path / 'x')
    torch.manual_seed(1)
    fresh = small(policy)
    fresh.load_state_dict(state_dict)
    assert_same_student(module, fresh)
    x = torch.randn(3, 4, 8, 8)
    assert torch.equal(module(x), fresh(x))


def test_many_peaks_are_restored_exactly(tmp_path):
    """``peak / qmax * qmax`` in float32 would miss some by one bit."""
    policy = QuantPolicy(weight_quantizer=dict(type='MinMaxQuantizer'))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3000))
    quantize_layers(module, policy, set())
    calibrate(module, [torch.randn(4, 2)], module)
    peaks = module[0].weight.abs().amax(1)
    assert ((peaks / 7) * 7 != peaks).any()
    pack_model(module, tmp_path / 'x', {})
    restored = read_packed(tmp_path / 'x')[0]['0.weight']
    assert torch.equal(restored.abs().amax(1), peaks)


class OddQuantizer(LSQQuantizer):
    """Rounds like LSQ, but the packer cannot know that."""


def test_unknown_weight_quantizers_are_refused(tmp_path):
    module = small(QuantPolicy())
    module[0].weight_quantizer.__class__ = OddQuantizer
    with pytest.raises(ValueError, match=r"OddQuantizer.*'LSQQuantizer'"):
        pack_model(module, tmp_path / 'x', {})
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_those_of_the_table(tmp_path, retinanet):
    model = retinanet
    path = tmp_path / 'x.mmgor'
    done = pack_model(model, path, {})
    total = layer_table(model)['total']
    assert done['tensor_bytes'] == total['bytes']
    assert done['bytes'] == path.stat().st_size
    assert done['bytes'] == done['tensor_bytes'] + done['manifest_bytes']
    assert done['bytes'] < total['float_bytes'] / 3


def test_a_shared_layer_is_stored_once(tmp_path):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    module = nn.Sequential(conv, nn.BatchNorm2d(3), conv)
    quantize_layers(module, QuantPolicy(), set(), calls={'0': 2})
    calibrate(module, [torch.randn(1, 3, 6, 6)], module)
    module.eval()
    done = pack_model(module, tmp_path / 'x', {})
    assert done['tensor_bytes'] == layer_table(module)['total']['bytes']
    state_dict, manifest = read_packed(tmp_path / 'x')
    kinds = {e['name']: e['kind'] for e in manifest['tensors']}
    assert (kinds['0.weight'], kinds['2.weight']) == ('weight', 'alias')
    assert state_dict['2.weight'] is state_dict['0.weight']
    assert list(state_dict) == list(module.state_dict())


def test_training_parts_stay_out(tmp_path, teacher_spec):
    model = student(student_cfg(teacher_spec))
    pack_model(model, tmp_path / 'x', {})
    state_dict, _ = read_packed(tmp_path / 'x')
    assert not any(k.startswith(('kd_', 'gor_')) for k in state_dict)
    fresh = MODELS.build(student_cfg(teacher_spec))
    fresh.load_state_dict(state_dict)  # strictly
    plain = MODELS.build(quantized_cfg())
    plain.load_state_dict(state_dict)
    assert_same_student(plain, fresh)


def test_float_models_are_refused(tmp_path):
    path = tmp_path / 'x'
    with pytest.raises(ValueError, match='no quantized layer; expected a'):
        pack_model(MODELS.build(retinanet_cfg()), path, {})
    model = MODELS.build(quantized_cfg())
    with pytest.raises(ValueError, match=r'never calibrated.*tools/train'):
        pack_model(model, path, {})
    module = small(QuantPolicy())
    module[1].double()
    with pytest.raises(ValueError, match=r'dtype float64.*model\.float\(\)'):
        pack_model(module, path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['4.weight', '1.running_var'])
def test_a_diverged_model_is_refused(tmp_path, name):
    module = small(QuantPolicy())
    module.state_dict()[name].view(-1)[1] = float('inf')
    with pytest.raises(ValueError, match=f'{name} is not finite; expected'):
        pack_model(module, tmp_path / 'x', {})
    assert list(tmp_path.iterdir()) == []


def test_differences_after_reading_back_are_noticed(tmp_path, monkeypatch):
    restore = pack.restore_weight

    def wrong(kind, integers, scale, qmax):
        weight = restore(kind, integers, scale, qmax)
        if integers.dim() == 2:
            weight[0, 0] += 0.6 * scale.exp()[0]
        return weight

    monkeypatch.setattr(pack, 'restore_weight', wrong)
    with pytest.raises(RuntimeError, match=r'\(4\.weight\); nothing was writ'):
        pack_model(small(QuantPolicy()), tmp_path / 'x', {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('stop', [KeyboardInterrupt, OSError])
def test_no_half_written_file_stays(tmp_path, monkeypatch, stop):
    path = tmp_path / 'x'
    path.write_text('old')

    def broken(_):
        raise stop

    monkeypatch.setattr(os, 'fsync', broken)
    with pytest.raises(stop):
        pack_model(small(QuantPolicy()), path, {})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == 'old'
