"""tools/report.py on a tiny student, from its config file."""

import sys

import pytest
import report
import torch
from mmengine.config import Config
from report import input_size, report_notes, uncounted_weights
from torch import nn

from mmgor.deploy.cost.rows import EVERYTHING_ELSE, LayerCost
from mmgor.quantization import calibrate, layer_table
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, student_cfg
from tests.support.training import dataset


@pytest.fixture
def config(tmp_path):
    """A student whose teacher is not there."""
    teacher = dict(config='gone.py', checkpoint='gone.pth')
    path = tmp_path / 'tiny_w4.py'
    Config(
        dict(
            default_scope='mmdet',
            model=student_cfg(teacher),
            test_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset', dataset=dataset(tmp_path, 'eval')
                )
            ),
        )
    ).dump(path)
    return path


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, argv)])
    report.main()


def test_text_and_page(config, tmp_path, monkeypatch, capsys):
    page = tmp_path / 'out' / 'report.html'
    run(monkeypatch, config, '--html', page)
    text = capsys.readouterr().out
    table = layer_table(MODELS.build(Config.fromfile(config).model))
    html = page.read_text()
    for row in table['layers']:
        assert f'\n{row["name"]} ' in text
        assert f'>{row["name"]}</td>' in html
    # the size of the test images
    assert 'Input:       1 x 3 x 64 x 64' in text
    assert 'Checkpoint:  none, untrained weights' in text
    assert f'{table["total"]["bytes"] / 1e6:.2f} MB' in text
    assert 'float32 computation in PyTorch' in text
    assert f'{len(table["layers"])} quantized layers are not calib' in text
    assert 'kd_heads' not in text
    assert '<h1>Cost of tiny_w4</h1>' in html
    assert text.strip().endswith(str(page))


def test_the_checkpoint_tells_input_kinds(
    config, tmp_path, monkeypatch, capsys
):
    torch.manual_seed(0)
    model = MODELS.build(quantized_cfg())
    batch = torch.rand(1, 3, 64, 64)
    calibrate(model, [batch], lambda x: model.bbox_head(model.extract_feat(x)))
    checkpoint = tmp_path / 'student.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    run(monkeypatch, config, checkpoint, '--size', '33', '64')
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    kinds = {line[0]: line[6] for line in lines if 'QuantConv2d' in line}
    assert kinds == {
        row['name']: row['input'] for row in layer_table(model)['layers']
    }
    assert set(kinds.values()) == {'signed', 'unsigned'}
    assert 'not calibrated' not in text
    # padded as the data_preprocessor pads images
    assert '1 x 3 x 64 x 64' in text


def test_errors(config, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r'config not found: no\.py'):
        run(monkeypatch, 'no.py')
    with pytest.raises(FileNotFoundError, match=r'checkpoint not found: no\.'):
        run(monkeypatch, config, 'no.pth')
    for size in (('0', '64'), ('64', '-3'), ('8', '8')):
        with pytest.raises(ValueError, match='too small: expected a height'):
            run(monkeypatch, config, '--size', *size)
    wrong = tmp_path / 'wrong.pth'
    torch.save(dict(state_dict={'x.weight': torch.ones(2, 2)}), wrong)
    with pytest.raises(RuntimeError, match='matches nothing of the'):
        run(monkeypatch, config, wrong)


def test_input_size():
    def cfg(*pipeline):
        return Config(
            dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))
        )

    resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    # mmdet writes width first
    assert input_size(cfg(dict(type='A'), resize), None, 32) == (800, 1344)
    assert input_size(cfg(resize), [100, 65], 1) == (100, 65)
    for nothing in (cfg(dict(type='A')), Config(dict())):
        with pytest.raises(ValueError, match='--size 640 640'):
            input_size(nothing, None, 32)


def cost(name, calls=1, kind='signed'):
    return LayerCost(
        name=name,
        type='QuantConv2d',
        shape=(1, 1, 1, 1),
        params=1,
        w_bits=4,
        a_bits=4,
        input=kind,
        bytes=1,
        float_bytes=4,
        calls=calls,
    )


def test_notes_say_what_is_missing():
    rest = cost(EVERYTHING_ELSE, calls=0, kind='float')
    usual = report_notes([cost('neck'), rest], [])
    assert not any('calls:' in n or 'calls of' in n for n in usual)
    notes = report_notes(
        [
            cost('roi_head.a', 0),
            cost('roi_head.b', 0, 'uncalibrated'),
            *(cost(f'decoder.{i}', 0) for i in range(5)),
            rest,
        ],
        ['level_embed'],
    )
    roi, others, uncalibrated, uncounted = notes[len(usual) :]
    assert 'The 2 layers of roi_head have 0 calls' in roi
    assert '0 calls: decoder.0, decoder.1, decoder.2 and 2 more' in others
    assert uncalibrated.startswith('1 quantized layers are not calibrated')
    assert uncounted.endswith('such as embeddings: level_embed.')


def test_uncounted_weights():
    model = nn.Module()
    model.conv = nn.Conv2d(2, 2, 1)
    model.norm = nn.BatchNorm2d(2)
    model.attention = nn.MultiheadAttention(4, 2)
    model.queries = nn.Embedding(2, 2)
    model.kd_heads = nn.ModuleDict(dict(a=nn.Embedding(2, 2)))
    assert uncounted_weights(model) == ['queries.weight']
