"""The command mmgor bits, on a student of scenes."""

import pytest
import torch
from mmengine.config import Config

from mmgor.bit_search import search
from mmgor.cli.main import main
from mmgor.io import checkpoint_reader
from mmgor.quantization import layer_table, quantized_layers
from mmgor.registry import MODELS
from tests.support.training import (
    scene_teacher,
    tiny_scenes,
    training_config,
)


@pytest.fixture(scope='module')
def student(tmp_path_factory):
    """Path of a student's config, and of its float weights."""
    folder = tmp_path_factory.mktemp('student')
    cfg = training_config(
        tiny_scenes(folder / 'scenes'), folder / 'work', scene_teacher(folder)
    )
    cfg.dump(folder / 'student.py')
    model = MODELS.build(cfg.model)
    torch.manual_seed(0)
    weights = {
        k: v for k, v in model.state_dict().items() if '_quantizer.' not in k
    }
    torch.save(dict(state_dict=weights), folder / 'float.pth')
    return folder / 'student.py', folder / 'float.pth'


def bits(student, out, *budget):
    main(['bits', *map(str, student), *budget, '--out', str(out)])
    return MODELS.build(Config.fromfile(out).model)


def means(model):
    """Mean bits of the weights of inner layers."""
    rows = [
        (x.weight.numel(), x.weight_quantizer.bits)
        for x in quantized_layers(model).values()
        if not x.is_edge
    ]
    return sum(n * b for n, b in rows) / sum(n for n, _ in rows)


def test_bits_that_keep_to_a_mean(student, tmp_path, capsys):
    out = tmp_path / 'bits.py'
    model = bits(student, out, '--mean-bits', '4')
    assert 3.5 < means(model) <= 4
    edges = {n: x for n, x in quantized_layers(model).items() if x.is_edge}
    assert {x.weight_quantizer.bits for x in edges.values()} == {8}
    assert [*edges] == [
        'backbone.conv1',
        'bbox_head.retina_cls',
        'bbox_head.retina_reg',
    ]
    used = {x.input_quantizer.bits for x in quantized_layers(model).values()}
    assert len(used) > 1
    assert out.with_suffix('.png').is_file()
    shown = capsys.readouterr().out
    assert 'backbone.layer1.0.conv1' in shown
    assert 'packed' in shown


def test_the_checkpoint_is_read_once(student, tmp_path, monkeypatch):
    read, load = [], checkpoint_reader.load_from_local

    def counted(path, *args):
        read.append(path)
        return load(path, *args)

    monkeypatch.setattr(checkpoint_reader, 'load_from_local', counted)
    bits(student, tmp_path / 'bits.py', '--mean-bits', '4')
    assert read.count(str(student[1])) == 1


def test_bits_that_keep_to_a_size(student, tmp_path):
    cfg = Config.fromfile(student[0])
    size = layer_table(MODELS.build(cfg.model))['total']['bytes']
    model = bits(student, tmp_path / 'bits.py', '--bytes', str(size))
    assert 0.97 * size < layer_table(model)['total']['bytes'] <= size
    inputs = {x.input_quantizer.bits for x in quantized_layers(model).values()}
    assert inputs == {4, 8}  # as the config says


def test_the_fewest_bits_within_a_drop(student, tmp_path, monkeypatch):
    def accuracy(runner, batches, chosen):
        if chosen is None:
            return 40.0
        counts = [sides['w_bits'] for sides in chosen.values()]
        return 40.0 - 8 / sum(counts) * len(counts)

    monkeypatch.setattr(search, '_accuracy', accuracy)
    model = bits(student, tmp_path / 'bits.py', '--budget', 'mAP 2')
    counts = [
        x.weight_quantizer.bits for x in quantized_layers(model).values()
    ]
    assert 4 <= sum(counts) / len(counts) < 5


def refused(student, out, *budget):
    with pytest.raises(SystemExit) as error:
        main(['bits', *map(str, student), *budget, '--out', str(out)])
    assert not out.exists()
    return str(error.value)


def test_a_drop_with_every_tensor_rounded(student, tmp_path, monkeypatch):
    monkeypatch.setattr(search, 'STEP', 6)  # tries 8 bits alone
    cfg = Config.fromfile(student[0])
    for part in (cfg.model.backbone, cfg.model.neck, cfg.model.bbox_head):
        part.quant.tensors = 'all'
    cfg.dump(tmp_path / 'student.py')
    given = tmp_path / 'student.py', student[1]
    model = bits(given, tmp_path / 'bits.py', '--budget', 'mAP 100')
    assert means(model) > 7


def test_a_drop_that_is_too_small_is_refused(student, tmp_path, monkeypatch):
    monkeypatch.setattr(search, '_accuracy', lambda *a: 30.0 * (a[2] is None))
    said = refused(student, tmp_path / 'bits.py', '--budget', 'mAP 0.5')
    assert 'lose 30.0' in said


def test_a_size_that_is_too_small_is_refused(student, tmp_path):
    said = refused(student, tmp_path / 'bits.py', '--bytes', '1kB')
    assert 'bytes are needed with 2 bits' in said


def test_batches_of_a_batch_sampler(student, tmp_path):
    cfg = Config.fromfile(student[0])
    sampler = dict(type='AspectRatioBatchSampler')
    cfg.train_dataloader.batch_sampler = sampler
    cfg.dump(tmp_path / 'student.py')
    given = tmp_path / 'student.py', student[1]
    model = bits(given, tmp_path / 'bits.py', '--mean-bits', '4')
    assert 3.5 < means(model) <= 4


def test_a_checkpoint_of_another_model_is_refused(student, tmp_path):
    weights = torch.load(student[1])['state_dict']
    part = {k: v for k, v in weights.items() if k.startswith('neck.')}
    torch.save(part, tmp_path / 'part.pth')
    given = student[0], tmp_path / 'part.pth'
    said = refused(given, tmp_path / 'bits.py', '--mean-bits', '4')
    assert 'a checkpoint of another model' in said


def test_the_student_is_not_overwritten(student):
    text = student[0].read_text()
    with pytest.raises(SystemExit, match='would overwrite a config'):
        bits(student, student[0], '--mean-bits', '4')
    assert student[0].read_text() == text


def test_a_float_config_is_refused(student, tmp_path):
    cfg = Config.fromfile(student[0])
    teacher = cfg.model.teachers[next(iter(cfg.model.teachers))]
    cfg.model = teacher.config
    cfg.dump(tmp_path / 'float.py')
    given = tmp_path / 'float.py', student[1]
    said = refused(given, tmp_path / 'bits.py', '--mean-bits', '4')
    assert 'expected the config of a student' in said


def test_parts_in_lists_get_their_own(tmp_path):
    from mmgor.bit_search.result import config_text

    part = dict(type='QuantNeck', neck='FPN', quant=dict(w_bits=4))
    model = dict(type='ATSS', neck=[part, dict(type='BFP')], quant=dict())
    Config(dict(model=model)).dump(tmp_path / 'base.py')
    chosen = {
        'neck.0.lateral_convs.0.conv': dict(w_bits=3, a_bits=5),
        'encoder.layers.0.linear': dict(w_bits=2),
    }
    out = tmp_path / 'bits.py'
    base = str(tmp_path / 'base.py')
    out.write_text(config_text(base, out, Config.fromfile(base), chosen))
    found = Config.fromfile(out).model
    assert found.neck[0].quant == dict(
        w_bits=4, overrides={'lateral_convs.0.conv': dict(w_bits=3, a_bits=5)}
    )
    assert found.neck[1] == dict(type='BFP')
    assert found.quant.overrides == {'encoder.layers.0.linear': {'w_bits': 2}}
