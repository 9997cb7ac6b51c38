"""The packed file: its bits, what comes back, and what is refused."""

import json
import os
import re
import struct
import sys
import zlib
from math import ceil

import numpy as np
import pack as pack_tool
import pytest
import torch
from conftest import make_batch, quantized_cfg, retinanet_cfg, student_cfg
from mmengine.config import Config
from torch import nn

from mmgor.deploy import pack, pack_file
from mmgor.deploy.pack import pack_model, read_packed
from mmgor.deploy.pack_bits import pack_bits, unpack_bits
from mmgor.quantization import (
    LSQQuantizer,
    calibrate,
    layer_table,
    quantized_layers,
)
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.registry import MODELS

WEIGHT_QUANTIZERS = ['LSQQuantizer', 'DoReFaQuantizer', 'MinMaxQuantizer']


def test_bits_by_hand():
    # 3 = 011, -3 = 101, 1 = 001, -1 = 111, 2 = 010, lowest bit first:
    # 110 101 10 | 0 111 010 and a 0: 1 + 2 + 8 + 32 + 64, 2 + 4 + 8 + 32
    packed = pack_bits(np.array([3, -3, 1, -1, 2]), 3)
    assert list(packed) == [107, 46]
    assert unpack_bits(packed, 3, 5).tolist() == [3, -3, 1, -1, 2]
    assert list(pack_bits(np.array([1, -1, -2, 0, 1]), 2)) == [45, 1]
    assert list(pack_bits(np.array([-127, 127]), 8)) == [129, 127]


@pytest.mark.parametrize('bits', range(2, 9))
@pytest.mark.parametrize('count', [1, 7, 8, 1001])
def test_bits_come_back(bits, count):
    generator = np.random.default_rng(0)
    highest = 2 ** (bits - 1)
    integers = generator.integers(-highest, highest, count)
    packed = pack_bits(integers, bits)
    assert len(packed) == ceil(count * bits / 8)
    assert (unpack_bits(packed, bits, count) == integers).all()


@pytest.mark.parametrize('value', [4, -5])
def test_integers_that_do_not_fit_are_refused(value):
    with pytest.raises(ValueError, match=f'3 bits, -4 to 3, got {value}'):
        pack_bits(np.array([0, value]), 3)


def student(cfg):
    """Calibrated, with batch norms that are not the identity."""
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    inputs = make_batch()['inputs']
    calibrate(model, [inputs], lambda x: model(x, mode='tensor'))
    model.train()
    model(inputs, mode='tensor')
    return model.eval()


def small(policy):
    """One layer of each kind, calibrated."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 4, 2, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 7 * 7, 5),
    )
    quantize_layers(module, policy, set())
    calibrate(module, [torch.randn(2, 4, 8, 8)], module)
    return module.eval()


def is_weight(model, name):
    layer = model.get_submodule(name.rpartition('.')[0])
    return name.endswith('.weight') and hasattr(layer, 'weight_quantizer')


def assert_same_student(one, two):
    """All bits but those of the quantized weights, which quantize alike."""
    state = two.state_dict()
    for name, value in one.state_dict().items():
        if not is_weight(one, name):
            assert torch.equal(value, state[name]), name
            assert value.dtype == state[name].dtype
    others = quantized_layers(two)
    for name, layer in quantized_layers(one).items():
        integers, grid = layer.weight_integers()
        got, got_grid = others[name].weight_integers()
        assert torch.equal(integers, got), name
        assert torch.equal(grid.scale, got_grid.scale), name
        assert torch.equal(layer.quantized_weight(),
                           others[name].quantized_weight())  # fmt: skip


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


def test_many_peaks_come_back_exactly(tmp_path):
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
    """Rounds like LSQ, but the packer cannot know."""


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


def test_what_does_not_come_back_is_noticed(tmp_path, monkeypatch):
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
def test_nothing_half_written_stays(tmp_path, monkeypatch, stop):
    path = tmp_path / 'x'
    path.write_text('old')

    def broken(_):
        raise stop

    monkeypatch.setattr(os, 'fsync', broken)
    with pytest.raises(stop):
        pack_model(small(QuantPolicy()), path, {})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == 'old'


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp('packed') / 'x.mmgor'
    pack_model(small(QuantPolicy()), path, {})
    return path


def test_files_that_cannot_be_read(packed, tmp_path):
    data, path = packed.read_bytes(), tmp_path / 'y'
    with pytest.raises(FileNotFoundError, match=r'not found.*tools/pack\.py'):
        read_packed(path)
    for foreign in (b'', b'PK\x03\x04 a torch checkpoint', data[1:]):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match=r"no packed file.*b'mmgor.*got"):
            read_packed(path)
    for length in (8, 19, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f'cut off.*bytes, got {length}'):
            read_packed(path)
    path.write_bytes(data + b'x')
    with pytest.raises(ValueError, match=f'expected {len(data)} bytes'):
        read_packed(path)


@pytest.mark.parametrize(
    'place, what', [(40, 'the manifest'), (-1, r'4\.input_quantizer\.log_')]
)
def test_damage_is_located(packed, tmp_path, place, what):
    data = bytearray(packed.read_bytes())
    data[place] ^= 1
    path = tmp_path / 'y'
    path.write_bytes(data)
    told = f'damaged at {what}.*: expected the checksum [0-9a-f]{{8}}, got'
    with pytest.raises(ValueError, match=told):
        read_packed(path)


def test_later_formats_are_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_file, 'FORMAT', 2)
    path = tmp_path / 'y'
    pack_model(small(QuantPolicy()), path, {})
    monkeypatch.undo()
    told = r'format 2, written by mmgor .*at most 1.*pip install -U mmgor'
    with pytest.raises(ValueError, match=told):
        read_packed(path)


def test_the_layout_as_documented(packed):
    """Read with nothing of mmgor: header, manifest, one weight."""
    data = packed.read_bytes()
    magic, length, checksum = struct.unpack('<8sQI', data[:20])
    assert magic == b'mmgor\r\n\x1a'
    text = data[20 : 20 + length]
    assert zlib.crc32(text) == checksum
    manifest = json.loads(zlib.decompress(text))
    tensors = {entry['name']: entry for entry in manifest['tensors']}
    entry = tensors['4.weight']
    assert (entry['kind'], entry['bits'], entry['qmax']) == ('weight', 4, 7)

    def block(name):
        start = 20 + length + tensors[name]['offset']
        return data[start : start + tensors[name]['bytes']]

    halves = np.frombuffer(block('4.weight'), np.uint8)
    nibbles = np.stack([halves & 15, halves >> 4], 1).ravel().astype(int)
    integers = np.where(nibbles > 7, nibbles - 16, nibbles)
    step = np.exp(np.frombuffer(block(entry['scale']), '<f4'))
    expected = small(QuantPolicy())[4].quantized_weight().detach().numpy()
    got = integers[: expected.size].reshape(entry['shape']) * step[:, None]
    assert np.allclose(got, expected, atol=1e-6)


@pytest.fixture(scope='module')
def files(tmp_path_factory, retinanet):
    """A config and the checkpoint of its student."""
    folder = tmp_path_factory.mktemp('student')
    cfg = dict(
        model=quantized_cfg(),
        test_dataloader=dict(dataset=dict(type='CocoDataset')),
    )
    Config(cfg).dump(folder / 'config.py')
    model = retinanet
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
    state_dict = {**model.state_dict(), 'kd_heads.cls.w': torch.ones(2)}
    torch.save(dict(state_dict=state_dict, meta=meta), folder / 'x.pth')
    return folder, model


def run_tool(monkeypatch, *argv):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.setattr(sys, 'argv', ['pack.py', *map(str, argv)])
    try:
        pack_tool.main()
    finally:
        os.environ.pop('LOCAL_RANK', None)


def test_the_tool(files, tmp_path, monkeypatch, capsys):
    folder, model = files
    out = tmp_path / 'new' / 'student.mmgor'
    config = folder / 'config.py'
    run_tool(monkeypatch, config, folder / 'x.pth', '--out', out)
    state_dict, manifest = read_packed(out)
    assert manifest['meta'] == dict(classes=['a', 'b', 'c'])
    fresh = MODELS.build(quantized_cfg())
    fresh.load_state_dict(state_dict)
    assert_same_student(model, fresh)
    total = layer_table(model)['total']
    told = re.search(
        r'3 class names; (\d+) bytes \((\d+) of tensors, (\d+) of manifest\),'
        r' (\d+) in float32',
        capsys.readouterr().out,
    )
    size, tensors, overhead, in_float = map(int, told.groups())
    assert size == out.stat().st_size == tensors + overhead
    assert (tensors, in_float) == (total['bytes'], total['float_bytes'])


def test_the_tool_refuses(files, tmp_path, monkeypatch, capsys):
    config, checkpoint = files[0] / 'config.py', files[0] / 'x.pth'
    out = tmp_path / 'student.mmgor'

    def told(error, message, *inputs, target=out):
        with pytest.raises(error, match=message):
            run_tool(monkeypatch, *inputs, '--out', target)

    told(SystemExit, '2', config, checkpoint, target=checkpoint)
    assert 'is an input; give another file' in capsys.readouterr().err
    told(FileNotFoundError, 'config not found', tmp_path / 'n.py', checkpoint)
    told(FileNotFoundError, 'checkpoint not found', config, tmp_path / 'n')
    path = tmp_path / 'other.pth'
    stock = MODELS.build(retinanet_cfg()).state_dict()
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
    torch.save(dict(state_dict=stock, meta=meta), path)
    told(ValueError, 'never calibrated', config, path)
    torch.save(dict(state_dict=dict(foo=torch.ones(1)), meta=meta), path)
    told(RuntimeError, 'matches nothing', config, path)
    assert not out.exists()
